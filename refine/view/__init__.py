"""What a grasp looks like: scenes, cameras, rays, pictures, web pages."""

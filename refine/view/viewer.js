'use strict';
const $ = id => document.getElementById(id), D = JSON.parse($('data').textContent);
const canvas = $('view'), gl = canvas.getContext('webgl2', {antialias: true, alpha: true, premultipliedAlpha: true});
if (!gl) { $('hint').textContent = 'This browser offers no WebGL 2, which the picture needs.'; throw new Error('no WebGL 2'); }

// ---- data: arrays are deflated and in base64; what changes over time is stored as steps from frame to frame
async function unpack(packed) {
  if (!packed) return null;
  const bytes = Uint8Array.from(atob(packed.data), c => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'));
  const kinds = {u1: Uint8Array, i1: Int8Array, u2: Uint16Array, u4: Uint32Array, f4: Float32Array};
  const values = new kinds[packed.kind](await new Response(stream).arrayBuffer()), row = packed.row;
  if (row) for (let i = row; i < values.length; i++) values[i] += values[i - row];
  return values;
}
const placed = (places, box, steps = 65535) => places && Float32Array.from(places, (q, i) => box[0][i % 3] + q / steps * (box[1][i % 3] - box[0][i % 3]));
async function unpackAll(tree) {
  if (tree === null || typeof tree !== 'object') return tree;
  if (tree.data !== undefined) return unpack(tree);
  const found = Array.isArray(tree) ? [] : {};
  for (const key of Object.keys(tree)) found[key] = await unpackAll(tree[key]);
  return found;
}

// ---- shading
const VERTEX = `#version 300 es
in vec3 position, normal; in float heat, open, depth; uniform mat4 world, lens, model; out vec3 n, p, place; out float h, closed, d;
void main() { closed = 1. - open; h = heat; d = depth; vec4 w = model * vec4(position, 1.), q = world * w; place = w.xyz; p = q.xyz;
  n = mat3(world) * (mat3(model) * normal); gl_Position = lens * q; }`;
const FRAGMENT = `#version 300 es
precision highp float; in vec3 n, p, place; in float h, closed, d; out vec4 o;
uniform vec3 stops[4], up; uniform vec4 plane; uniform float painted, alpha, soft, gloss, deep, buried, opened;
vec3 ramp(float t) { t = clamp(t, 0., 1.) * 3.; vec3 c = mix(stops[0], stops[1], clamp(t, 0., 1.));
  c = mix(c, stops[2], clamp(t - 1., 0., 1.)); return mix(c, stops[3], clamp(t - 2., 0., 1.)); }
void main() {
  if (dot(plane.xyz, place) > plane.w) discard;
  float sky = 1. - closed * (1. - opened), inside = 2. * d - 1.; if (buried > 0. && inside < .01) discard;
  vec3 N = normalize(n), V = normalize(-p); float back = step(dot(N, V), 0.); N *= 1. - 2. * back;
  vec3 K = normalize(vec3(-.5, .72, .62)), F = normalize(vec3(.85, .05, .45));
  vec3 wrap = soft * vec3(1., .45, .35), base = ramp(h * painted);
  base = mix(base, mix(vec3(.95, .30, .25), vec3(.45, 0., .08), inside), deep * smoothstep(0., .03, inside));
  vec3 c = pow(base, vec3(2.2)) * (1. - .35 * back);
  vec3 light = sky * vec3(mix(.22, .5, .5 + .5 * dot(N, up))) + .74 * max((dot(N, K) + wrap) / (1. + wrap), 0.)
    * smoothstep(0., .6, sky) + .16 * max(dot(N, F), 0.) * (.4 + .6 * sky);
  float facing = max(dot(N, V), 0.);
  float glint = .22 * pow(max(dot(N, normalize(K + V)), 0.), 28.) + .12 * pow(1. - facing, 4.);
  float a = alpha < 1. ? clamp(alpha * (1.3 - .9 * facing), 0., 1.) : 1.;
  if (buried > 0.) { a = buried; light = vec3(.75 + .25 * facing); glint = 0.; }
  c = pow(clamp(c * light + gloss * glint, 0., 1.), vec3(1. / 2.2)); o = vec4(c * a, a); }`;
const program = gl.createProgram();
for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
  const shader = gl.createShader(kind); gl.shaderSource(shader, text); gl.compileShader(shader);
  if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
  gl.attachShader(program, shader);
}
gl.linkProgram(program); gl.useProgram(program);
const at = name => gl.getUniformLocation(program, name);

function mesh(position, normal, faces) {
  const m = {vao: gl.createVertexArray(), count: faces.length, buffers: {}, kind: faces instanceof Uint16Array ? gl.UNSIGNED_SHORT : gl.UNSIGNED_INT};
  m.set = (name, data, size) => {
    gl.bindVertexArray(m.vao);
    gl.bindBuffer(gl.ARRAY_BUFFER, m.buffers[name] ??= gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, data, gl.DYNAMIC_DRAW);
    const place = gl.getAttribLocation(program, name); gl.enableVertexAttribArray(place);
    const whole = data instanceof Uint8Array || data instanceof Int8Array;
    gl.vertexAttribPointer(place, size, !whole ? gl.FLOAT : data instanceof Int8Array ? gl.BYTE : gl.UNSIGNED_BYTE, whole, 0, 0);
  };
  const none = new Uint8Array(position.length / 3);  // a depth of none: far outside
  m.set('open', none.slice().fill(255), 1); m.set('heat', none, 1); m.set('depth', none, 1);
  m.set('position', position, 3); m.set('normal', normal, 3);
  gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer()); gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, faces, gl.STATIC_DRAW);
  return m;
}
function normalsOf(v, faces, out) {
  out.fill(0);
  for (let i = 0; i < faces.length; i += 3) {
    const a = 3 * faces[i], b = 3 * faces[i + 1], c = 3 * faces[i + 2];
    const x = v[b] - v[a], y = v[b + 1] - v[a + 1], z = v[b + 2] - v[a + 2];
    const r = v[c] - v[a], s = v[c + 1] - v[a + 1], t = v[c + 2] - v[a + 2];
    const n0 = y * t - z * s, n1 = z * r - x * t, n2 = x * s - y * r;
    for (const k of [a, b, c]) { out[k] += n0; out[k + 1] += n1; out[k + 2] += n2; }
  }
  return out;
}
const lerp = (a, b, s) => s <= 0 ? a : s >= 1 ? b : a.map((x, i) => x + s * (b[i] - x));

(async () => {
const S = await unpackAll(D.arrays);  // every array by name, see the page's writer
const frames = D.frames, states = Object.keys(S.hands), pace = 1000 / D.fps;
const hands = Object.fromEntries(states.map(name => [name, placed(S.hands[name], D.handBox, D.handSteps)]));
const count = hands.after.length / 3 / frames, objectCount = S.objectPoints.length / 3;
const slice = (values, frame, size) => values.subarray(frame * size, (frame + 1) * size);

// ---- the hand between two states, and its smooth skin (Phong tessellation: Boubekeur & Alexa 2008)
const shown = {from: 'before', to: 'after', s: 1, frame: 0};
const blend = (pick) => lerp(pick(shown.from), pick(shown.to), shown.s);
const {faces: handFaces, skin: skinFaces, edges, twins} = S.hand;
const total = count + edges.length / 2 + twins.length;
function smooth(base) {
  const n = normalsOf(base, skinFaces, new Float32Array(base.length)), out = new Float32Array(3 * total);
  for (let i = 0; i < n.length; i += 3) { const l = Math.hypot(n[i], n[i + 1], n[i + 2]) || 1; n[i] /= l; n[i + 1] /= l; n[i + 2] /= l; }
  out.set(base);
  for (let e = 0; e < edges.length / 2; e++) {
    const ends = [3 * edges[2 * e], 3 * edges[2 * e + 1]], at = 3 * (count + e);
    const m = [0, 1, 2].map(c => (base[ends[0] + c] + base[ends[1] + c]) / 2), lift = [0, 0, 0];
    for (const k of ends) {
      const drop = (m[0] - base[k]) * n[k] + (m[1] - base[k + 1]) * n[k + 1] + (m[2] - base[k + 2]) * n[k + 2];
      for (let c = 0; c < 3; c++) lift[c] += drop * n[k + c] / 4;
    }
    for (let c = 0; c < 3; c++) out[at + c] = m[c] - lift[c];
  }
  twins.forEach((old, i) => { for (let c = 0; c < 3; c++) out[3 * (total - twins.length + i) + c] = out[3 * old + c]; });
  return out;
}
function carry(values) {
  const out = new Uint8Array(total); out.set(values);
  for (let e = 0; e < edges.length / 2; e++) out[count + e] = (values[edges[2 * e]] + values[edges[2 * e + 1]]) / 2;
  twins.forEach((old, i) => { out[total - twins.length + i] = out[old]; });
  return out;
}
function spread(values) {  // from the object's sample points to the vertices that are drawn
  const {index, weight} = S.spread, k = D.neighbours, out = new Uint8Array(objectCount);
  for (let i = 0; i < objectCount; i++) {
    let sum = 0, all = 0;
    for (let j = i * k; j < (i + 1) * k; j++) { sum += weight[j] * values[index[j]]; all += weight[j]; }
    out[i] = sum / (all || 1);
  }
  return out;
}
const thing = mesh(placed(S.objectPoints, D.objectBox), S.objectNormals, S.objectFaces);
const start = smooth(slice(hands.after, 0, 3 * count)), work = new Float32Array(3 * total);
const hand = mesh(start, normalsOf(start, handFaces, work), handFaces);
const ghosts = {before: mesh(start, work, handFaces), truth: mesh(start, work, handFaces)};

// ---- what can be painted: label, ends of its scale, stops of its colours, and its values now
const ends = {distance: [`${D.touchFull} mm apart or more`, 'touching'], contact: ['no contact', 'contact'], sd: ['0', '0.5 (1σ)'], doubt: ['0 mm', `${D.doubtFull} mm (1σ)`]};
const per = (fields, size) => name => fields[name] && slice(fields[name], shown.frame, size);
const objectPoints = S.object && Object.values(S.object.distance || {}).concat(S.object.predicted || [])[0];
const sampled = objectPoints ? objectPoints.length / frames : 0;
const doubtful = stops => stops === D.stops.object ? D.stops.doubtObject : D.stops.doubtHand;
const paints = (fields, size, stops, more) => ({
  plain: {label: 'plain'},
  distance: {label: 'contact as it is', long: 'contact as it is, by distance', ends: ends.distance, stops, values: () => fields.distance && blend(per(fields.distance, size))},
  predicted: {label: 'contact as predicted', ends: ends.contact, stops, values: () => fields.predicted && slice(fields.predicted, shown.frame, size)},
  sd: {label: 'standard deviation of that', ends: ends.sd, stops: doubtful(stops), values: () => fields.sd && slice(fields.sd, shown.frame, size)},
  ...more,
});

const onObject = paints(S.object || {}, sampled, D.stops.object, {both: {label: 'as it is | as predicted', ends: ends.contact, stops: D.stops.object}});
const onHand = paints(S.handFields || {}, count, D.stops.hand, {doubt: {label: 'how unsure its place is', ends: ends.doubt, stops: D.stops.doubtHand, values: () => S.handFields.doubt && slice(S.handFields.doubt, shown.frame, count)}});
function choices(select, options, wanted) {
  const there = Object.entries(options).filter(([key, o]) => key === 'plain' || (key === 'both' ? S.object?.distance && S.object?.predicted : o.values && o.values()));
  for (const [key, o] of there) select.add(new Option(o.label, key));
  select.value = there.some(([key]) => key === wanted) ? wanted : 'plain';
}
choices($('paintObject'), onObject, 'distance'); choices($('paintHand'), onHand, 'plain');
if ($('paintObject').value === 'plain' && S.object?.predicted) $('paintObject').value = 'predicted';
const depths = S.handFields?.depth;
if (!depths) $('deep').parentElement.hidden = true;
if (!S.joints) $('sigma').parentElement.hidden = true;
if (!hands.truth) $('ghostTruth').parentElement.hidden = true;

// ---- camera and drawing
const home = () => ({yaw: D.yaw, pitch: D.pitch, away: D.away, target: [...D.target]});
const IDENTITY = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1], OPEN = [0, 0, 0, 1];
let eye = home(), queued = false, lens = null;
const redraw = () => { if (!queued) { queued = true; requestAnimationFrame(draw); } };
const photos = D.photos, lenses = photos && photos.lenses;
let own = false, lay = {zoom: 1, x: 0, y: 0};  // whether the camera's own view is shown, and where its picture lies
const axes = () => {
  if (own) { const m = photos.toCamera[shown.frame]; return [m.slice(0, 3), m.slice(3, 6), m.slice(6, 9)]; }
  const [cy, sy, cp, sp] = [Math.cos(eye.yaw), Math.sin(eye.yaw), Math.cos(eye.pitch), Math.sin(eye.pitch)];
  return [[cy, 0, -sy], [-sp * sy, cp, -sp * cy], [cp * sy, sp, cp * cy]];  // right, up, towards the viewer
};
const objectPose = () => slice(S.objectPose, shown.frame, 16);
function cutPlane() {
  const share = +$('cut').value, R = axes(), axis = $('axis').value;
  if (share === 0) return OPEN;
  const normal = axis === 'view' ? R[2] : [0, 1, 2].map(i => +(i === +axis)), M = objectPose();
  let low = Infinity, high = -Infinity;
  for (let corner = 0; corner < 8; corner++) {
    const q = [0, 1, 2].map(c => D.objectBox[corner >> c & 1][c]);
    const along = [0, 1, 2].reduce((sum, r) => sum + normal[r] * (M[r] * q[0] + M[4 + r] * q[1] + M[8 + r] * q[2] + M[12 + r]), 0);
    low = Math.min(low, along); high = Math.max(high, along);
  }
  return [...normal, high + share * (low - high)];
}
function draw() {
  queued = false;
  const scale = Math.min(devicePixelRatio || 1, 2), w = Math.round(canvas.clientWidth * scale), h = Math.round(canvas.clientHeight * scale);
  if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
  gl.viewport(0, 0, w, h); gl.clearColor(0, 0, 0, 0); gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
  gl.enable(gl.DEPTH_TEST); gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  const R = axes(), t = eye.target, split = $('paintObject').value === 'both', width = split ? w / 2 : w;
  const move = own ? photos.toCamera[shown.frame].slice(9) : R.map((r, i) => -(r[0] * t[0] + r[1] * t[1] + r[2] * t[2]) - (i === 2 ? eye.away : 0));
  gl.uniformMatrix4fv(at('world'), false, [R[0][0], R[1][0], R[2][0], 0, R[0][1], R[1][1], R[2][1], 0, R[0][2], R[1][2], R[2][2], 0, ...move, 1]);
  const away = own ? -(R[2][0] * t[0] + R[2][1] * t[1] + R[2][2] * t[2] + move[2]) : eye.away, near = away / 50, far = away * 20;
  const f = 1 / Math.tan(D.fov / 2) * Math.min(1, width / h / D.aspect);
  const [fx, skew, u, fy, v] = own ? ownLens(width / scale, h / scale) : [f * h / width, 0, 0, f, 0];
  gl.uniformMatrix4fv(at('lens'), false, [fx, 0, 0, 0, skew, fy, 0, 0, u, v, (near + far) / (near - far), -1, 0, 0, 2 * near * far / (near - far), 0]);
  gl.uniform3f(at('up'), R[0][1], R[1][1], R[2][1]);
  gl.uniform1f(at('opened'), Math.max(+$('clear').value, +$('cut').value > 0 ? .7 : 0));  // then light gets in
  lens = {R, move, fx, skew, u, fy, v, width: width / scale, height: h / scale};
  const halves = split ? ['distance', 'predicted'] : [$('paintObject').value];
  halves.forEach((what, i) => {
    gl.viewport(i * width, 0, width, h);
    const paint = onObject[what];
    if (paint.values) thing.set('heat', spread(paint.values()), 1);
    half(paint, onHand[$('paintHand').value]);
  });
  $('left').hidden = $('right').hidden = !split;
  marks();
}
function ownLens(width, height) {  // lays the pictures; what takes a point before the camera to -1..1, x right, y up
  const [w, h] = photos.sizes[shown.frame], [fx, skew, cx, fy, cy] = lenses[shown.frame];
  const s = Math.min(width / w, height / h) * lay.zoom, left = (width - s * w) / 2 + lay.x, top = (height - s * h) / 2 + lay.y;
  panes.forEach((pane, i) => {
    const image = pane.firstElementChild;
    Object.assign(pane.style, {left: `${i * width}px`, width: `${width}px`});
    Object.assign(image.style, {left: `${left}px`, top: `${top}px`, width: `${s * w}px`, height: `${s * h}px`});
  });
  lay.place = ([x, y]) => [left + s * (x + .5), top + s * (y + .5)];  // of a pixel, whose middle is a whole number
  const [x, y] = lay.place([cx, cy]);
  return [2 * s * fx / width, -2 * s * skew / width, 1 - 2 * x / width, 2 * s * fy / height, 2 * y / height - 1];
}
function half(paintObject, paintHand) {
  const show = (m, stops, painted, {alpha = 1, soft = 0, gloss = .25, model = IDENTITY, plane = OPEN, deep = 0, buried = 0}) => {
    gl.uniform3fv(at('stops'), stops.flat());
    for (const [name, value] of Object.entries({painted, alpha, soft, gloss, deep, buried})) gl.uniform1f(at(name), value);
    gl.uniform4fv(at('plane'), plane); gl.uniformMatrix4fv(at('model'), false, model);
    gl.bindVertexArray(m.vao); gl.drawElements(gl.TRIANGLES, m.count, m.kind, 0);
  };
  const veil = (m, stops, painted, look) => {  // depth first, so that only the nearest layer shows
    gl.colorMask(false, false, false, false); show(m, stops, painted, look);
    gl.colorMask(true, true, true, true); gl.depthFunc(gl.LEQUAL); gl.enable(gl.BLEND);
    show(m, stops, painted, look); gl.disable(gl.BLEND); gl.depthFunc(gl.LESS);
  };
  const solid = 1 - $('clear').value, model = objectPose(), plane = cutPlane(), deep = depths && $('deep').checked ? 1 : 0;
  const object = look => (look.alpha < 1 ? veil : show)(thing, paintObject.stops || D.stops.object, +!!paintObject.values, look);
  const values = paintHand.values && paintHand.values();
  if (values) hand.set('heat', carry(values), 1);
  const glow = strength => {  // penetrating skin that lies behind what is drawn already
    gl.depthFunc(gl.GREATER); gl.depthMask(false); gl.enable(gl.BLEND);
    show(hand, D.stops.hand, 0, {deep, buried: strength});
    gl.depthFunc(gl.LESS); gl.depthMask(true); gl.disable(gl.BLEND);
  };
  if (solid === 1) { object({model, plane}); if (deep) glow(.75); }
  show(hand, paintHand.stops || D.stops.hand, +!!values, {soft: .35, gloss: .4, deep});
  if (solid < 1) object({model, plane, alpha: solid});
  if (deep) glow(.25);
  if ($('ghostBefore').checked) veil(ghosts.before, D.stops.before, 0, {alpha: .4, soft: .3, gloss: .2});
  if (hands.truth && $('ghostTruth').checked) veil(ghosts.truth, D.stops.truth, 0, {alpha: .4, soft: .3, gloss: .2});
}

// ---- joints and their standard deviations, over the picture
const joints = placed(S.joints, D.handBox, D.handSteps), NAMES = ['wrist'].concat(...['thumb', 'index', 'middle', 'ring', 'pinky'].map(f => [1, 2, 3].map(k => `${f} joint ${k}`).concat(`${f} tip`)));
function project(k) {
  const {R, move, fx, skew, u, fy, v, width, height} = lens, base = 3 * (jointCount * shown.frame + k), q = R.map((r, i) => r[0] * joints[base] + r[1] * joints[base + 1] + r[2] * joints[base + 2] + move[i]);
  const [x, y] = [(fx * q[0] + skew * q[1] + u * q[2]) / -q[2], (fy * q[1] + v * q[2]) / -q[2]];
  return {x: width / 2 * (1 + x), y: height / 2 * (1 - y), unit: fy * height / 2 / -q[2]};
}
const jointCount = joints ? joints.length / 3 / frames : 0, deviation = k => S.jointSd[jointCount * shown.frame + k];
const joinable = () => joints && shown.to === 'after' && shown.s > .5 && $('paintObject').value !== 'both';
function marks() {
  $('sigma').disabled = !joinable();  // it is the refined hand's
  const on = joinable() && $('sigma').checked;
  const keys = own && $('paintObject').value !== 'both' ? photos.keypoints[shown.frame].map(lay.place) : [];
  $('joints').innerHTML = keys.map(([x, y]) => `<path class="key" d="M${x - 5},${y}h10M${x},${y - 5}v10"/>`).join('') + (on ? Array.from({length: jointCount}, (_, k) => { const {x, y, unit} = project(k); return `<circle cx="${x.toFixed(1)}" cy="${y.toFixed(1)}" r="${(deviation(k) * unit).toFixed(1)}"/>`; }).join('') : '');
}
function hover(e) {
  const box = canvas.getBoundingClientRect(), x = e.clientX - box.left, y = e.clientY - box.top;
  let best = null;
  if (joinable() && lens) for (let k = 0; k < jointCount; k++) { const p = project(k), far = Math.hypot(p.x - x, p.y - y); if (far < 18 && (!best || far < best.far)) best = {k, far}; }
  $('tip').hidden = !best;
  if (best) { $('tip').textContent = `${NAMES[best.k % 21]}: ± ${(1e3 * deviation(best.k)).toFixed(1)} mm (1σ)`; $('tip').style.left = `${Math.min(x + 12, box.width - 170)}px`; $('tip').style.top = `${Math.max(y - 30, 4)}px`; }
}

// ---- controls
function update() {
  const base = blend(name => slice(hands[name], shown.frame, 3 * count)), skin = smooth(base);
  hand.set('position', skin, 3); hand.set('normal', normalsOf(skin, handFaces, work), 3);
  if (depths) {
    const now = blend(per(depths, count)), deepest = (now.reduce((a, b) => Math.max(a, b), 0) / 127.5 - 1) * D.depthFull;
    hand.set('depth', carry(now), 1);
    $('deepest').textContent = deepest > .05 ? `: ${deepest.toFixed(1)} mm` : ': none';
  }
  if (S.open) { thing.set('open', blend(name => S.open.object[name]), 1); hand.set('open', blend(name => S.open.hand[name]), 1); }
  for (const [name, ghost] of Object.entries(ghosts)) if (hands[name]) {
    const still = smooth(slice(hands[name], shown.frame, 3 * count));
    ghost.set('position', still, 3); ghost.set('normal', normalsOf(still, handFaces, work), 3);
  }
  for (const b of $('hands').children) b.className = (shown.s > .5 ? shown.to : shown.from) === b.textContent ? 'on' : '';
  $('clock').textContent = `${shown.frame + 1} / ${frames}`; $('frame').value = shown.frame;
  for (const said of document.querySelectorAll('.said')) said.hidden = said.firstElementChild.textContent !== D.status[shown.frame];
  if (own) look();
  redraw();
}
function slide(to) {
  const now = shown.s > .5 ? shown.to : shown.from, pair = [now, to].includes('truth') ? [now, to] : ['before', 'after'];
  const goal = pair[1] === to ? 1 : 0, from = pair[0] === now ? 0 : 1, start = performance.now();
  [shown.from, shown.to] = pair;
  const step = time => {
    const k = Math.min((time - start) / 450, 1); shown.s = from + (goal - from) * k * k * (3 - 2 * k); reflect(); update();
    if (k < 1) requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
}
const reflect = () => { if (shown.from === 'before' && shown.to === 'after') $('mix').value = shown.s; };
for (const name of states) { const b = document.createElement('button'); b.textContent = name; b.id = `show-${name}`; b.onclick = () => slide(name); $('hands').append(b); }
$('mix').addEventListener('input', () => { [shown.from, shown.to, shown.s] = ['before', 'after', +$('mix').value]; update(); });
function legends() {
  const rows = [['object', onObject[$('paintObject').value]], ['hand', onHand[$('paintHand').value]]].filter(([, p]) => p.ends);
  if ($('paintObject').value === 'both') rows.splice(0, 2, ['left', onObject.distance], ['right', onObject.predicted]);
  $('legends').replaceChildren(...rows.map(([who, p]) => {
    const box = document.createElement('div'); box.className = 'legend'; box.append(`${who}: ${p.long || p.label}`);
    const bar = document.createElement('div'), scale = document.createElement('div'); bar.className = 'bar'; scale.className = 'scale';
    bar.style.background = `linear-gradient(90deg,${p.stops.map(c => `rgb(${c.map(x => Math.round(255 * x))})`)})`;
    for (const text of p.ends) { const end = document.createElement('span'); end.textContent = text; scale.append(end); }
    box.append(bar, scale); return box;
  }));
  const note = text => { const box = document.createElement('div'); box.className = 'legend'; box.textContent = text; $('legends').append(box); };
  if (deepShown()) note(`red skin: inside the object, darkest at ${D.depthFull} mm and deeper`);
  if (own && photos.keypoints[shown.frame].length) note('blue crosses: where keypoints were given');
  redraw();
}
const deepShown = () => depths && $('deep').checked;
for (const id of ['paintObject', 'paintHand', 'deep']) $(id).addEventListener('change', legends);
for (const id of ['clear', 'cut', 'axis', 'sigma', 'ghostBefore', 'ghostTruth']) $(id).addEventListener('input', redraw);

// ---- the camera's own view
const HINT = $('hint').textContent, panes = [...document.querySelectorAll('.pane')];
function look() {
  $('stage').classList.toggle('own', own); $('own').classList.toggle('on', own); $('free').classList.toggle('on', !own);
  $('hint').textContent = own ? 'drag to move · wheel or pinch to zoom · double-click to reset' : HINT;
  $('overRow').hidden = !own; canvas.style.opacity = own ? $('over').value : 1;
  panes.forEach((pane, i) => { pane.hidden = !own || i && $('paintObject').value !== 'both'; });
  if (own) for (const pane of panes) { const source = `data:image/jpeg;base64,${photos.images[shown.frame]}`; if (pane.firstElementChild.src !== source) pane.firstElementChild.src = source; }
  redraw();
}
if (photos) {
  $('views').hidden = false;
  for (const id of ['own', 'free']) $(id).onclick = () => { own = id === 'own'; look(); legends(); };
  $('over').addEventListener('input', look); $('paintObject').addEventListener('change', look);
}

// ---- time
if (frames > 1) {
  $('time').hidden = false; $('frame').max = frames - 1;
  let playing = false, began = 0;
  const tick = now => {
    if (!playing) return;
    const frame = Math.floor(Math.max(now - began, 0) / pace) % frames;
    if (frame !== shown.frame) { shown.frame = frame; update(); }
    requestAnimationFrame(tick);
  };
  $('play').onclick = () => { playing = !playing; $('play').textContent = playing ? 'pause' : 'play'; began = performance.now() - shown.frame * pace; requestAnimationFrame(tick); };
  $('frame').addEventListener('input', () => { shown.frame = +$('frame').value; began = performance.now() - shown.frame * pace; update(); });
}

// ---- mouse and fingers
function pan(dx, dy) {
  if (own) { lay.x += dx; lay.y += dy; return; }
  const k = 2 * eye.away * Math.tan(D.fov / 2) / canvas.clientHeight, R = axes();
  [R[0], R[1]].forEach((axis, i) => axis.forEach((a, j) => { eye.target[j] += (i ? dy : -dx) * k * a; }));
}
const fingers = new Map();
const apart = () => { const [a, b] = [...fingers.values()]; return Math.hypot(a.x - b.x, a.y - b.y); };
const zoom = k => {
  if (own) { const z = Math.min(Math.max(lay.zoom / k, 1), 12), by = z / lay.zoom; lay.zoom = z; lay.x *= by; lay.y *= by; return; }
  eye.away = Math.min(Math.max(eye.away * k, D.away / 8), D.away * 6); };
canvas.addEventListener('pointerdown', e => { canvas.setPointerCapture(e.pointerId); fingers.set(e.pointerId, {x: e.clientX, y: e.clientY}); hover(e); });
canvas.addEventListener('pointermove', e => {
  const was = fingers.get(e.pointerId); if (!was) { hover(e); return; }
  const dx = e.clientX - was.x, dy = e.clientY - was.y, span = fingers.size === 2 ? apart() : 0;
  fingers.set(e.pointerId, {x: e.clientX, y: e.clientY});
  if (fingers.size === 2) { zoom(span / Math.max(apart(), 1)); pan(dx / 2, dy / 2); }
  else if (own || e.shiftKey || e.buttons === 2) pan(dx, dy);
  else { eye.yaw -= dx * .008; eye.pitch = Math.min(Math.max(eye.pitch + dy * .008, -1.55), 1.55); }
  redraw();
});
for (const name of ['pointerup', 'pointercancel']) canvas.addEventListener(name, e => fingers.delete(e.pointerId));
canvas.addEventListener('wheel', e => { e.preventDefault(); zoom(Math.exp(e.deltaY * .0012)); redraw(); }, {passive: false});
canvas.addEventListener('dblclick', () => { eye = home(); lay = {zoom: 1, x: 0, y: 0}; redraw(); });
canvas.addEventListener('contextmenu', e => e.preventDefault());
addEventListener('resize', redraw);
update(); legends();
document.body.dataset.ready = 'yes';
})();

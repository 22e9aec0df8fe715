// `element` holds the dial, `props.value` is its azimuth in whole degrees; the template draws again when that changes.
const dial = () => element.querySelector(".dial");
const turn = (angle) => {
  const value = ((Math.round(angle) % 360) + 360) % 360;
  if (value === Number(props.value)) return;
  props.value = value;
  trigger("input");
};
const bearing = (event) => {
  const box = dial().getBoundingClientRect();
  const right = event.clientX - (box.left + box.width / 2);
  const up = box.top + box.height / 2 - event.clientY;
  return (Math.atan2(right, up) * 180) / Math.PI;
};
let held = null;
element.addEventListener("pointerdown", (event) => {
  if (!event.target.closest(".dial") || event.button > 0) return;
  event.preventDefault();
  held = event.pointerId;
  dial().setPointerCapture(held);
  dial().focus({ focusVisible: false, preventScroll: true });
  turn(bearing(event));
});
element.addEventListener("pointermove", (event) => {
  if (event.pointerId === held) turn(bearing(event));
});
for (const end of ["pointerup", "pointercancel"]) {
  element.addEventListener(end, (event) => {
    if (event.pointerId === held) held = null;
  });
}
const steps = { ArrowRight: 5, ArrowUp: 5, ArrowLeft: -5, ArrowDown: -5, PageUp: 45, PageDown: -45 };
element.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const from = Number(props.value);
  if (event.key in steps) turn(from + (event.shiftKey ? Math.sign(steps[event.key]) : steps[event.key]));
  else if (event.key === "Home") turn(0);
  else if (event.key === "End") turn(180);
  else return;
  event.preventDefault();
});

// The newest column stays in sight, unless a person has scrolled away from it.
let follows = true;
const scroller = () => element.querySelector('.dr-samples');
const follow = () => { const grid = scroller(); if (grid && follows) grid.scrollLeft = grid.scrollWidth; };
element.addEventListener('scroll', () => {
  const grid = scroller();
  if (grid && grid.clientWidth) follows = grid.scrollLeft + grid.clientWidth >= grid.scrollWidth - 24;
}, true);
new ResizeObserver(follow).observe(element);
watch('value', follow);

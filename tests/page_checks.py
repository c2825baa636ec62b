"""What every page must hold in a browser."""

A4 = 703  # pixels between the margins of 12 mm
# What stands beyond the right edge, or in a box that cuts it off.
CUT_OFF = """() => [...document.querySelectorAll("main *")].filter((e) => !e.closest("svg") && e.getClientRects().length
  && (e.getBoundingClientRect().right > document.documentElement.clientWidth + 1 || (e.scrollWidth > e.clientWidth + 1
  && getComputedStyle(e).overflowX !== "visible" && getComputedStyle(e).textOverflow !== "ellipsis"))
).map((e) => `${e.tagName} ${e.textContent.slice(0, 60)}`)"""

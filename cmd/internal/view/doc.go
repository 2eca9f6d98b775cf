// Package view shows to people what a machine does: a migration by a progress bar, and afterwards its
// numbers and a picture of its rounds; written lines by a table of windows, or by a live map of memory.
//
// The map is made in three steps, of which only the last knows a terminal: Heat, the state, draws a Grid of
// characters of any size; a Grid is text, a frame of escape sequences or an SVG; Screen puts frames in place of
// each other. So golden files test all but the terminal, and a picture in the documentation is what users see.
//
// Rejected: a library for terminals (a map needs to go home, clear to the end of a line and choose a colour); clearing the screen
// before each frame (it flickers); a scale relative to the hottest cell (colours would change their meaning from
// window to window).
package view

// Package demo shows the main job to somebody who has just built the tree: a guest under
// load moves, live, from one VMM process to another, and its own check says whether a line
// was lost. It uses the same binary, flags and API as a user would, nothing inside.
//
// Everything it starts and every file it makes is gone when Run returns, for whatever
// reason it does.
package demo

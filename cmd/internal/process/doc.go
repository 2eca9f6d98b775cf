// Package process starts `fineline run` as a child, talks to it through its API and ends
// it: what the demo, the benchmarks and the end-to-end tests have in common.
//
// A child never outlives its parent (a parent that is killed takes it along), and is in a
// process group of its own: Ctrl-C on the terminal reaches the parent alone, which then
// ends its children in an order that makes sense. Rejected: machines inside this process,
// since two processes are what a migration is about.
package process

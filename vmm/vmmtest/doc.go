// Package vmmtest is what tests of machines share: what a host cannot do, so that each skips with the same
// reason, kernels of a few instructions, and the log of what a guest says.
package vmmtest

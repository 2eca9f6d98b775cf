// Package vmmtest says to tests what a host cannot do, so that each skips with the same reason.
package vmmtest

// Package track answers which 64-byte lines of guest memory changed.
package track

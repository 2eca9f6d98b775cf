// Package postcopy delivers the memory of a guest that runs at the destination already: a Server at the source, a
// Pager at the destination.
package postcopy

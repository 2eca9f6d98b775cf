// Package jsonlist decodes JSON arrays that come from a peer or a file and must not
// grow into more memory than their few bytes suggest: "{}," is three bytes and may
// stand for a kilobyte. It decodes one element at a time and stops at a limit.
//
// Rejected: checking the length after decoding (the memory is gone by then), and
// smaller caps on the bytes (a state of many vCPUs is legitimately large).
package jsonlist

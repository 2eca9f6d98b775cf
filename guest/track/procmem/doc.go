// Package procmem reads where the memory of a process is: its mappings from /proc/PID/maps and the frames
// behind them from /proc/PID/pagemap.
//
// # One process, not one number
//
// Both files are opened once and kept. The kernel binds such a descriptor to the address space that the
// process had when it was opened: after an exec or the process's end it reads as empty, never as the memory
// of another program or of a later process with the same number. So a check of who the process is
// (its owner, a pidfd) that is made after the opening holds as long as the descriptors do.
//
// # Frames
//
// pagemap shows frame numbers only to CAP_SYS_ADMIN; others read zeros, which is told as
// ErrHiddenFrames and never taken for frame 0. An entry is a moment's truth: package follow says how
// it is used all the same.
//
// Reads are large (8 bytes a page, at most 64 KiB a call): the kernel's walk costs about as much as the copy.
package procmem

package tracktest

import (
	"fmt"
	"slices"

	"github.com/fineline-vmm/fineline/guest/track/procmem"
)

// Space is one process's address space in the machine: its methods are what a kernel and a program do.
// It is for one goroutine.
type Space struct {
	Machine *Machine
	// Keep is how many frames are free before one is used again.
	Keep int
	// Avoid forbids a frame to a page.
	Avoid func(address, frame uint64) bool
	// BeforeRead runs before each read of the page table.
	BeforeRead func()

	entries map[uint64]procmem.Entry // by address of the page
	swap    map[uint64][]byte
	slots   uint64
	free    []uint64 // frames, oldest first
}

// NewSpace returns an empty address space.
func NewSpace(m *Machine) *Space {
	return &Space{Machine: m, entries: map[uint64]procmem.Entry{}, swap: map[uint64][]byte{}}
}

// Read is the page table's.
func (s *Space) Read(address uint64, entries []procmem.Entry) error {
	if s.BeforeRead != nil {
		s.BeforeRead()
	}
	for i := range entries {
		entries[i] = s.entries[address+uint64(i)*pageBytes]
	}
	return nil
}

// newFrame takes the frame that has been free for the longest, if more than Keep are, or a new one.
func (s *Space) newFrame(address uint64) uint64 {
	for i, frame := range s.free {
		if len(s.free) > s.Keep && !(s.Avoid != nil && s.Avoid(address, frame)) {
			s.free = slices.Delete(s.free, i, i+1)
			return frame
		}
	}
	return s.Machine.Frame()
}

// Frame returns the page's frame, which it gets if it has none, as an access does.
func (s *Space) Frame(address uint64) uint64 {
	if frame, ok := s.entries[address].Frame(); ok {
		return frame
	}
	frame := s.newFrame(address)
	content := s.swap[address]
	if content == nil {
		content = make([]byte, pageBytes)
	}
	delete(s.swap, address)
	s.Machine.Store(frame, 0, content)
	s.entries[address] = procmem.Present(frame)
	return frame
}

// Store is the program's.
func (s *Space) Store(address uint64, p []byte) {
	s.Machine.Store(s.Frame(address/pageBytes*pageBytes), int(address%pageBytes), p)
}

// Page returns the program's view of a page.
func (s *Space) Page(address uint64) [pageBytes]byte {
	var p [pageBytes]byte
	if frame, ok := s.entries[address].Frame(); ok {
		s.Machine.Read(frame, 0, p[:])
	} else {
		copy(p[:], s.swap[address])
	}
	return p
}

// Move migrates a page to another frame. The old one becomes free, and filler its content.
func (s *Space) Move(address uint64, filler byte) {
	old, ok := s.entries[address].Frame()
	if !ok {
		return
	}
	frame := s.newFrame(address)
	content := s.Page(address)
	s.Machine.Store(frame, 0, content[:])
	s.entries[address] = procmem.Present(frame)
	s.release(old, filler)
}

func (s *Space) release(frame uint64, filler byte) {
	for _, e := range s.entries {
		if f, ok := e.Frame(); ok && f == frame {
			return
		}
	}
	var p [pageBytes]byte
	for i := range p {
		p[i] = filler
	}
	s.Machine.Store(frame, 0, p[:])
	s.free = append(s.free, frame)
}

// SwapOut takes a page's frame and keeps its content.
func (s *Space) SwapOut(address uint64, filler byte) {
	frame, ok := s.entries[address].Frame()
	if !ok {
		return
	}
	content := s.Page(address)
	s.swap[address] = content[:]
	s.slots++
	s.entries[address] = procmem.Entry(1<<62 | s.slots)
	s.release(frame, filler)
}

// Drop is madvise(MADV_DONTNEED): the page reads as zeros.
func (s *Space) Drop(address uint64, filler byte) {
	frame, ok := s.entries[address].Frame()
	delete(s.entries, address)
	delete(s.swap, address)
	if ok {
		s.release(frame, filler)
	}
}

// Exchange is what mremap can do: two pages change their addresses and keep their frames.
func (s *Space) Exchange(a, b uint64) {
	s.entries[a], s.entries[b] = s.entries[b], s.entries[a]
	s.swap[a], s.swap[b] = s.swap[b], s.swap[a]
}

// Share maps the page of one address at another, too, as shared memory.
func (s *Space) Share(address, again uint64) {
	frame := s.Frame(address)
	if _, ok := s.entries[again]; ok {
		panic(fmt.Sprintf("tracktest: %#x is mapped", again))
	}
	s.entries[again] = procmem.Present(frame)
}

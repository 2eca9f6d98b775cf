package main

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/fineline-vmm/fineline/migration"
	"github.com/fineline-vmm/fineline/vmm/api"
)

// arriving is what the API tells of a machine that has come here, and whose memory may follow it.
type arriving struct {
	*migration.Received
	AbsentPages uint64 `json:"absent_pages"`      // still to come
	Stalled     string `json:"stalled,omitempty"` // the guest is paused: why its memory does not come
	Error       string `json:"error,omitempty"`   // memory is lost
}

// arrival follows the memory of a guest that is here. The Listener's goroutines tell it what happens, which may be before
// the machine itself was reported.
type arrival struct {
	lost   chan error  // gets why memory is lost; capacity 1
	coming atomic.Bool // a machine was built for a source that sends one

	mu     sync.Mutex
	now    arriving
	absent func() uint64
	stream *api.Arriving // nil: not reported yet
	ended  bool
}

// stalled is the Listener's: the connection to the memory is lost or, with nil, back.
func (a *arrival) stalled(cause error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.now.Stalled = ""
	if cause != nil {
		a.now.Stalled = cause.Error()
	}
	a.tell()
}

// complete is the Listener's: all memory is here, or never will be.
func (a *arrival) complete(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ended = true
	if err != nil {
		a.now.Error = err.Error()
		if !errors.Is(err, context.Canceled) { // by whoever ends this process
			a.lost <- err
		}
	}
	a.tell()
}

// begin takes the machine and the stream on which the rest is told.
func (a *arrival) begin(stream *api.Arriving, r *migration.Received, absent func() uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.now.Received, a.absent, a.stream = r, absent, stream
	a.tell()
}

// whole takes a machine that came with all its memory.
func (a *arrival) whole(r *migration.Received) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.now.Received = r
}

// tell publishes how it is. Precondition: mu held.
func (a *arrival) tell() {
	switch {
	case a.stream == nil:
	case a.ended:
		a.stream.Ended(a.pictureLocked())
	default:
		a.stream.Progress(a.pictureLocked())
	}
}

func (a *arrival) pictureLocked() arriving {
	p := a.now
	if a.absent != nil {
		p.AbsentPages = a.absent()
	}
	return p
}

// picture is how it is; false: nothing has come.
func (a *arrival) picture() (arriving, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.pictureLocked(), a.now.Received != nil
}

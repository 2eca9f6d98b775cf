package migration

import (
	"sync"

	"github.com/sirupsen/logrus"
)

// Holder is a Target whose guest can be held still again after Run: while the connection to its memory
// is lost. A guest that waits for a page in the kernel may count as held.
type Holder interface {
	Pause() error
	// Resume lets the guest go on if Pause was what held it.
	Resume() error
}

// hold pauses a guest and lets it go on, in the background and in order. Nobody waits for it: a pause may
// end only when a page has come for which a vCPU waits in a kernel that does not let go of it; until then that
// vCPU gets no further either.
type hold struct {
	holder Holder // nil: it can't be held
	log    logrus.FieldLogger

	mu         sync.Mutex
	want, busy bool
}

// set says whether the guest is to be held.
func (h *hold) set(held bool) {
	if h.holder == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.want = held
	if !h.busy {
		h.busy = true
		go h.work(!held)
	}
}

// work goes on until the guest is as wanted. is: whether it is held now.
func (h *hold) work(is bool) {
	for {
		h.mu.Lock()
		want := h.want
		if want == is {
			h.busy = false
			h.mu.Unlock()
			return
		}
		h.mu.Unlock()
		do := h.holder.Resume
		if want {
			do = h.holder.Pause
		}
		if err := do(); err != nil {
			h.log.Warnf("migration: the guest can't be paused or resumed: %v", err)
		}
		is = want
	}
}

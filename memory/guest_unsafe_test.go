package memory

import (
	"sync/atomic"
	"unsafe"
)

// fakeGuest is a hypervisor's half without a hypervisor: it stores through the
// guest mapping, where the accessors see nothing, and reports as KVM does.
type fakeGuest struct {
	g                             *Guest
	dirty                         []atomic.Uint64
	startErr, collectErr, stopErr error
}

func newFakeGuest(g *Guest) *fakeGuest {
	return &fakeGuest{g: g, dirty: make([]atomic.Uint64, g.layout.words)}
}

// store writes one aligned word as guest code would.
func (f *fakeGuest) store(gpa GPA, v uint64) {
	i := f.g.layout.find(gpa)
	s := &f.g.layout.spans[i]
	off := uint64(gpa - s.Base)
	atomic.StoreUint64((*uint64)(unsafe.Add(f.g.rams[i].guest, off)), v)
	page := off / PageSize
	f.dirty[s.firstWord+int(page/64)].Or(1 << (page % 64))
}

func (f *fakeGuest) Start() error { return f.startErr }
func (f *fakeGuest) Stop() error  { return f.stopErr }

func (f *fakeGuest) Collect(into *PageSet) error {
	if f.collectErr != nil {
		return f.collectErr
	}
	for i := range f.g.layout.spans {
		s := &f.g.layout.spans[i]
		bits := make([]uint64, s.words())
		for w := range bits {
			bits[w] = f.dirty[s.firstWord+w].Swap(0)
		}
		into.AddBits(s.Base, s.pages(), bits)
	}
	return nil
}

package linescheck

import (
	"bytes"
	"errors"
	"fmt"
	"math/bits"

	"github.com/fineline-vmm/fineline/memory"
)

// ErrMismatch: the guest's memory is not what its program makes of it.
var ErrMismatch = errors.New("guest memory is not what the program makes")

// Lines is a set of lines: bit i of a page's mask is its line i. No mask is zero.
type Lines map[memory.GPA]uint64

// Count is the number of lines.
func (l Lines) Count() int {
	n := 0
	for _, mask := range l {
		n += bits.OnesCount64(mask)
	}
	return n
}

// Store is what one step stored.
type Store struct {
	VCPU  int
	Step  uint64 // from 1
	GPA   memory.GPA
	Bytes []byte // as the step left them; valid during the call that shows it
}

// Model is the guest's region after a number of rounds. It is not safe for concurrent use.
type Model struct {
	opts   Options
	region []byte
	rounds uint64
	vcpus  []VCPU
	last   []author // of each line
}

// author is the last step that stored to a line; Step 0 is nobody.
type author struct {
	vcpu int
	step uint64
}

// New returns the region before the first round, all zeros. It takes as much memory as the guest's region. The
// error wraps ErrBadHeader.
func New(o Options) (*Model, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	return &Model{
		opts: o, region: make([]byte, o.Pages*memory.PageSize), vcpus: make([]VCPU, o.VCPUs),
		last: make([]author, o.Pages*pageLines),
	}, nil
}

// Region returns the model's region, which callers must not write to.
func (m *Model) Region() []byte { return m.region }

// Round runs one round of all vCPUs and returns the lines that were stored to, and those whose bytes
// are not what they were before the round.
func (m *Model) Round() (stored, changed Lines) {
	before := bytes.Clone(m.region)
	stored, changed = Lines{}, Lines{}
	m.Replay(func(s Store) {
		end := s.GPA + memory.GPA(len(s.Bytes))
		for line := s.GPA &^ (lineBytes - 1); line < end; line += lineBytes {
			stored.add(line)
		}
	})
	for i := 0; i < len(before); i += lineBytes {
		if !bytes.Equal(before[i:i+lineBytes], m.region[i:i+lineBytes]) {
			changed.add(m.opts.Base + memory.GPA(i))
		}
	}
	return stored, changed
}

func (l Lines) add(line memory.GPA) {
	l[line&^(memory.PageSize-1)] |= 1 << (line % memory.PageSize / lineBytes)
}

// Replay is a round, step by step: all steps of vCPU 0 that store, in their order, then those of vCPU 1,
// and so on. With one vCPU that is the order of the guest's stores.
func (m *Model) Replay(visit func(Store)) {
	for vcpu := range m.vcpus {
		me := &m.vcpus[vcpu]
		for range m.opts.Steps {
			me.Done++
			o := m.opts.op(vcpu, me.Done)
			me.Loaded = o.apply(m.region, me.Loaded)
			if !o.stores() {
				continue
			}
			for line := o.at / lineBytes; line <= (o.at+o.bytes-1)/lineBytes; line++ {
				m.last[line] = author{vcpu, me.Done}
			}
			visit(Store{vcpu, me.Done, m.opts.Base + memory.GPA(o.at), m.region[o.at : o.at+o.bytes]})
		}
	}
	m.rounds++
}

// Check compares the guest, between two rounds, with the model after as many. Errors wrap ErrMismatch, or are those
// of Read.
func (m *Model) Check(mem Memory) error {
	s, err := Read(mem)
	if err != nil {
		return err
	}
	if s.Options != m.opts || s.Rounds != m.rounds {
		return fmt.Errorf("%w: guest %+v after %d rounds, model %+v after %d", ErrMismatch, s.Options, s.Rounds, m.opts, m.rounds)
	}
	found := make([]byte, len(m.region))
	if err := mem.ReadAt(m.opts.Base, found); err != nil {
		return fmt.Errorf("reading the region: %w", err)
	}
	if err := m.compare(found); err != nil {
		return err
	}
	for i, v := range s.VCPUs {
		if v != m.vcpus[i] {
			return fmt.Errorf("%w: vcpu %d has done %d steps and loaded what gives %#x, expected %d and %#x",
				ErrMismatch, i, v.Done, v.Loaded, m.vcpus[i].Done, m.vcpus[i].Loaded)
		}
	}
	return nil
}

// compare names the line that was stored to first of all that are wrong: what comes after it may follow from it.
func (m *Model) compare(found []byte) error {
	first, wrong := -1, 0
	for at := 0; at < len(found); at += lineBytes {
		if bytes.Equal(found[at:at+lineBytes], m.region[at:at+lineBytes]) {
			continue
		}
		if wrong++; first < 0 || m.last[at/lineBytes].step < m.last[first/lineBytes].step {
			first = at
		}
	}
	if wrong == 0 {
		return nil
	}
	who := "nobody stored to it"
	if a := m.last[first/lineBytes]; a.step != 0 {
		o := m.opts.op(a.vcpu, a.step)
		who = fmt.Sprintf("last stored to by vcpu %d, step %d, %v at %#x", a.vcpu, a.step, &o, uint64(m.opts.Base)+o.at)
	}
	return fmt.Errorf("%w: %d lines wrong, first %#x (%s): expected %x, found %x", ErrMismatch, wrong,
		uint64(m.opts.Base)+uint64(first), who, m.region[first:first+lineBytes], found[first:first+lineBytes])
}

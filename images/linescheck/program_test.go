package linescheck

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"testing"

	"github.com/fineline-vmm/fineline/memory"
)

const everyKind = Kinds(1<<kindCount - 1)

func options(vcpus int) Options {
	return Options{Seed: 11, Base: 0x400000, Pages: 5, VCPUs: vcpus, Steps: 4000, Kinds: everyKind}
}

// Every form of every kind comes, at every width, and across lines and pages; and no vCPU leaves its bytes.
func TestProgramIsRich(t *testing.T) {
	for vcpus := 1; vcpus <= 3; vcpus++ {
		t.Run(fmt.Sprint(vcpus), func(t *testing.T) {
			o := options(vcpus)
			forms, overlaps, lines, pages := map[string]int{}, 0, 0, 0
			for vcpu := range vcpus {
				for step := uint64(1); step <= 10000; step++ {
					p := o.op(vcpu, step)
					forms[fmt.Sprint(p.kind, p.form)]++
					checkPlace(t, &o, vcpu, &p)
					last := p.at + p.bytes - 1
					lines += int(last/lineBytes - p.at/lineBytes)
					pages += int(last/memory.PageSize - p.at/memory.PageSize)
					if p.kind == stringOp && p.form <= movsqBack && !p.outside && max(p.at, p.from)-min(p.at, p.from) < p.bytes {
						overlaps++
					}
				}
			}
			for kind, names := range formNames {
				for form, name := range names {
					if forms[fmt.Sprint(kind, form)] < 50 {
						t.Errorf("%s %s came %d times", kindNames[kind], name, forms[fmt.Sprint(kind, form)])
					}
				}
			}
			if overlaps < 50 || lines < 2000 || pages < 100 {
				t.Errorf("%d moves overlap, %d ends of lines and %d of pages are crossed", overlaps, lines, pages)
			}
		})
	}
}

func checkPlace(t *testing.T, o *Options, vcpu int, p *op) {
	t.Helper()
	if p.counter() {
		if p.at < o.countersAt() || p.at%lineBytes+p.bytes > 32 || p.at%p.bytes != 0 {
			t.Fatalf("%v at %#x: no counter", p, p.at)
		}
		return
	}
	if p.kind == atomic && p.at%p.bytes != 0 || p.vector() && p.form >= vectorAligned && p.at%p.bytes != 0 {
		t.Fatalf("%v at %#x: not aligned", p, p.at)
	}
	ours := func(at uint64) bool {
		if o.VCPUs == 1 {
			return at+p.bytes <= o.countersAt()
		}
		block := at / blockBytes
		return (at+p.bytes-1)/blockBytes == block && int(block)%o.VCPUs == vcpu && (block+1)*blockBytes <= o.countersAt()
	}
	if !ours(p.at) || p.kind == stringOp && p.form <= movsqBack && !p.outside && !ours(p.from) {
		t.Fatalf("vcpu %d: %v at %#x from %#x: not its bytes", vcpu, p, p.at, p.from)
	}
	if p.outside && p.from+p.bytes > sourceBytes {
		t.Fatalf("%v from %#x: outside of the source", p, p.from)
	}
}

// The order in which vCPUs take their steps makes no difference: that is what lets a model run them one by one.
func TestOrderOfVCPUs(t *testing.T) {
	o := options(2)
	m, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	m.Round()
	region, loaded := make([]byte, len(m.region)), [2]uint64{}
	for step := uint64(1); step <= uint64(o.Steps); step++ {
		for _, vcpu := range []int{1, 0} {
			p := o.op(vcpu, step)
			loaded[vcpu] = p.apply(region, loaded[vcpu])
		}
	}
	if !bytes.Equal(region, m.region) || loaded != [2]uint64{m.vcpus[0].Loaded, m.vcpus[1].Loaded} {
		t.Error("two orders, two results")
	}
}

// What a round reports is what its stores say, one by one.
func TestRoundAgreesWithReplay(t *testing.T) {
	o := options(1)
	o.Steps = 30
	rounds, _ := New(o)
	replay, _ := New(o)
	silent := 0
	for range 20 {
		before := bytes.Clone(rounds.Region())
		stored, changed := rounds.Round()
		shadow := bytes.Clone(before)
		replay.Replay(func(s Store) {
			copy(shadow[s.GPA-o.Base:], s.Bytes)
			for at := s.GPA; at < s.GPA+memory.GPA(len(s.Bytes)); at++ {
				if stored[at&^(memory.PageSize-1)]>>(at%memory.PageSize/lineBytes)&1 == 0 {
					t.Fatalf("step %d stores to %#x: not reported", s.Step, uint64(at))
				}
			}
		})
		if !bytes.Equal(shadow, rounds.Region()) {
			t.Fatal("the stores do not make the region")
		}
		for page, mask := range changed {
			if mask&^stored[page] != 0 {
				t.Errorf("page %#x: changed %#x, stored to %#x", uint64(page), mask, stored[page])
			}
		}
		for page, mask := range stored {
			silent += bits.OnesCount64(mask &^ changed[page])
		}
	}
	if silent < 20 {
		t.Errorf("only %d lines were stored to and not changed", silent)
	}
}

// flat is memory from address 0.
type flat []byte

func (f flat) ReadAt(gpa memory.GPA, p []byte) error {
	if uint64(gpa) > uint64(len(f)) || len(p) > len(f)-int(gpa) {
		return memory.ErrOutOfRange
	}
	copy(p, f[gpa:])
	return nil
}

const recordsAt = 0x108000

// guest is memory as the guest leaves it after the model's rounds.
func guest(m *Model) flat {
	f := make(flat, int(m.opts.Base)+len(m.region))
	h := []byte(magic)
	le := binary.LittleEndian
	h = le.AppendUint32(h, version)
	h = le.AppendUint32(h, uint32(m.opts.VCPUs))
	h = le.AppendUint64(h, m.opts.Seed)
	h = le.AppendUint64(h, uint64(m.opts.Base))
	h = le.AppendUint64(h, m.opts.Pages)
	h = le.AppendUint32(h, uint32(m.opts.Kinds))
	h = le.AppendUint32(h, uint32(m.opts.Steps))
	h = le.AppendUint64(h, m.rounds)
	h = le.AppendUint64(h, recordsAt)
	copy(f[HeaderAt:], h)
	for i, v := range m.vcpus {
		le.PutUint64(f[recordsAt+i*recordBytes:], v.Done)
		le.PutUint64(f[recordsAt+i*recordBytes+8:], v.Loaded)
	}
	copy(f[m.opts.Base:], m.region)
	return f
}

func TestCheck(t *testing.T) {
	m, err := New(options(2))
	if err != nil {
		t.Fatal(err)
	}
	m.Round()
	if err := m.Check(guest(m)); err != nil {
		t.Fatal(err)
	}
	put := func(at memory.GPA, v uint64) func(flat) flat {
		return func(f flat) flat {
			binary.LittleEndian.PutUint64(f[at:], v)
			return f
		}
	}
	for name, tt := range map[string]struct {
		damage func(flat) flat
		want   error
	}{
		"no magic":               {put(HeaderAt, 0), ErrNotReady},
		"version and vcpus":      {put(HeaderAt+8, 2|2<<32), ErrBadHeader},
		"9 vcpus":                {put(HeaderAt+8, 1|9<<32), ErrBadHeader},
		"other seed":             {put(HeaderAt+16, 12), ErrMismatch},
		"base off a page":        {put(HeaderAt+24, 0x400001), ErrBadHeader},
		"one page":               {put(HeaderAt+32, 1), ErrBadHeader},
		"no kinds":               {put(HeaderAt+40, 4000<<32), ErrBadHeader},
		"no steps":               {put(HeaderAt+40, uint64(everyKind)), ErrBadHeader},
		"other round":            {put(HeaderAt+48, 2), ErrMismatch},
		"records outside memory": {put(HeaderAt+56, 1<<40), memory.ErrOutOfRange},
		"region outside memory":  {func(f flat) flat { return f[:len(f)-1] }, memory.ErrOutOfRange},
		"a byte of the region": {func(f flat) flat {
			f[m.opts.Base+4000] ^= 1
			return f
		}, ErrMismatch},
		"a loaded value": {put(recordsAt+recordBytes+8, 1), ErrMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			if err := m.Check(tt.damage(guest(m))); !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
		})
	}
}

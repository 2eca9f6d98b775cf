package dirtycheck

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/fineline-vmm/fineline/memory"
)

// sparse is memory that exists from 0 to size; pages nobody wrote read as zeros.
type sparse struct {
	size  uint64
	pages map[memory.GPA]*[memory.PageSize]byte
}

func newSparse(size uint64) *sparse {
	return &sparse{size: size, pages: map[memory.GPA]*[memory.PageSize]byte{}}
}

func (m *sparse) each(gpa memory.GPA, n int, fn func(page *[memory.PageSize]byte, at, from, to int)) error {
	if uint64(gpa) > m.size || uint64(n) > m.size-uint64(gpa) {
		return fmt.Errorf("%w: %d bytes at %#x", memory.ErrOutOfRange, n, uint64(gpa))
	}
	for done := 0; done < n; {
		at := int(gpa) % memory.PageSize
		step := min(n-done, memory.PageSize-at)
		frame := gpa - memory.GPA(at)
		if m.pages[frame] == nil {
			m.pages[frame] = new([memory.PageSize]byte)
		}
		fn(m.pages[frame], at, done, done+step)
		done += step
		gpa += memory.GPA(step)
	}
	return nil
}

func (m *sparse) ReadAt(gpa memory.GPA, p []byte) error {
	return m.each(gpa, len(p), func(page *[memory.PageSize]byte, at, from, to int) { copy(p[from:to], page[at:]) })
}

func (m *sparse) write(t testing.TB, gpa memory.GPA, p []byte) {
	t.Helper()
	err := m.each(gpa, len(p), func(page *[memory.PageSize]byte, at, from, to int) { copy(page[at:], p[from:to]) })
	if err != nil {
		t.Fatal(err)
	}
}

func (m *sparse) write64(t testing.TB, gpa memory.GPA, v uint64) {
	t.Helper()
	m.write(t, gpa, binary.LittleEndian.AppendUint64(nil, v))
}

// twin writes what the guest writes, in the same order of stores, and can stop after any of them.
type twin struct {
	t       testing.TB
	mem     *sparse
	p       Params
	streams []stream
	done    []uint64
}

const (
	recordsAt = memory.GPA(0x108000)
	tablesAt  = memory.GPA(0x200000)
	tableGap  = 0x100000
	regionAt  = memory.GPA(0x1000000)
)

func tableAt(vcpu int) memory.GPA  { return tablesAt + memory.GPA(vcpu*tableGap) }
func recordAt(vcpu int) memory.GPA { return recordsAt + memory.GPA(vcpu*recordBytes) }

func newTwin(t testing.TB, vcpus int, p Params) *twin {
	t.Helper()
	p.Base = regionAt
	w := &twin{t: t, p: p, mem: newSparse(1 << 30), done: make([]uint64, vcpus)}
	for v := range vcpus {
		n := (p.allLines() - uint64(v) + uint64(vcpus) - 1) / uint64(vcpus)
		w.streams = append(w.streams, newStream(p.Seed, v, n, p.Pattern))
		w.mem.write64(t, recordAt(v)+16, uint64(tableAt(v)))
		w.mem.write64(t, recordAt(v)+24, n)
	}
	w.mem.write(t, HeaderAt, w.header())
	return w
}

func (w *twin) header() []byte {
	le := binary.LittleEndian
	h := []byte(magic)
	h = le.AppendUint32(h, version)
	h = le.AppendUint32(h, uint32(len(w.streams)))
	h = le.AppendUint64(h, w.p.Seed)
	h = le.AppendUint64(h, uint64(w.p.Base))
	h = le.AppendUint64(h, w.p.Pages)
	h = le.AppendUint32(h, uint32(w.p.LinesPerPage))
	h = le.AppendUint32(h, uint32(w.p.BytesPerLine))
	h = le.AppendUint32(h, uint32(w.p.Pattern))
	table := uint32(0)
	if w.p.Table {
		table = 1
	}
	h = le.AppendUint32(h, table)
	h = le.AppendUint64(h, w.p.RatePerSec)
	h = le.AppendUint64(h, w.p.Steps)
	h = le.AppendUint64(h, w.p.TSCKHz)
	return le.AppendUint64(h, uint64(recordsAt))
}

// step does the next step of a vCPU but only its first `stores` stores: the journal, the line's words one by one,
// the table entry, the counter. It returns the line's address and whether all was done.
func (w *twin) step(vcpu, stores int) (memory.GPA, bool) {
	s, step := &w.streams[vcpu], w.done[vcpu]+1
	value := s.value(step)
	line := s.line(value, step)
	at := w.p.address(len(w.streams), vcpu, line)
	todo := []func(){func() { w.mem.write64(w.t, recordAt(vcpu), step) }}
	for i := range (w.p.BytesPerLine + 7) / 8 {
		todo = append(todo, func() { w.mem.write64(w.t, at+memory.GPA(8*i), word(value, i, w.p.BytesPerLine)) })
	}
	if w.p.Table {
		todo = append(todo, func() { w.mem.write64(w.t, tableAt(vcpu)+memory.GPA(8*line), step) })
	}
	todo = append(todo, func() {
		w.mem.write64(w.t, recordAt(vcpu)+8, step)
		w.done[vcpu] = step
	})
	for i := 0; i < min(stores, len(todo)); i++ {
		todo[i]()
	}
	return at, stores >= len(todo)
}

func (w *twin) run(steps int) {
	for range steps {
		for v := range w.streams {
			w.step(v, 100)
		}
	}
}

func (w *twin) check() *Report {
	w.t.Helper()
	r, err := Check(w.mem, 10)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// written returns a line of vcpu that was written at least `times` times, its address, and the steps that did it.
func (w *twin) written(vcpu, times int) (line uint64, at memory.GPA, steps []uint64) {
	w.t.Helper()
	s := &w.streams[vcpu]
	by := map[uint64][]uint64{}
	for step := uint64(1); step <= w.done[vcpu]; step++ {
		line := s.line(s.value(step), step)
		by[line] = append(by[line], step)
	}
	for line := range s.lines {
		if len(by[line]) >= times {
			return line, w.p.address(len(w.streams), vcpu, line), by[line]
		}
	}
	w.t.Fatalf("no line of vcpu %d was written %d times", vcpu, times)
	return 0, 0, nil
}

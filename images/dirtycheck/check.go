package dirtycheck

import (
	"encoding/binary"
	"fmt"

	"github.com/fineline-vmm/fineline/memory"
)

const batchPages = 64 // pages, or pages' worth of table, that are read at once

// Report is the outcome of a check.
type Report struct {
	State
	LinesChecked uint64     `json:"lines_checked"`
	Mismatches   uint64     `json:"mismatches"` // lines, table entries and records that are wrong
	Details      []Mismatch `json:"details,omitempty"`

	maxDetails int
}

// GuestMismatches is what the guest itself found wrong while it ran, before writing a line again.
func (r *Report) GuestMismatches() uint64 {
	var sum uint64
	for _, v := range r.VCPUs {
		sum += v.Mismatches
	}
	return sum
}

func (r *Report) add(m Mismatch) {
	r.Mismatches++
	if len(r.Details) < r.maxDetails {
		r.Details = append(r.Details, m)
	}
}

// writer is one vCPU's sequence and, after replay, the last step of each of its lines (0: never written).
type writer struct {
	stream
	VCPU
	last []uint64
	// The store in progress, if any: step is Next, or 0.
	inFlightStep, inFlightLine uint64
}

// Check verifies every line and table entry of the guest, which must not run meanwhile. The report names the
// first maxDetails mismatches. It takes 8 bytes of memory for each line. Errors are those of ReadState.
func Check(mem Memory, maxDetails int) (*Report, error) {
	state, err := ReadState(mem)
	if err != nil {
		return nil, err
	}
	r := &Report{State: *state, maxDetails: maxDetails}
	// The header's word alone must not make us allocate: the last page of the region has to exist.
	end := r.Params.Base + memory.GPA(r.Params.Pages*memory.PageSize)
	if err := mem.ReadAt(end-1, make([]byte, 1)); err != nil {
		return nil, fmt.Errorf("%w: %d pages at %#x: %w", ErrBadHeader, r.Params.Pages, uint64(r.Params.Base), err)
	}
	writers := make([]*writer, len(r.VCPUs))
	for i, v := range r.VCPUs {
		w := &writer{VCPU: v, stream: newStream(r.Params.Seed, i, v.Lines, r.Params.Pattern)}
		if v.Next != v.Done && v.Next != v.Done+1 {
			r.add(Mismatch{Kind: Record, VCPU: i, Step: v.Done, FoundStep: v.Next})
		}
		w.replay()
		writers[i] = w
	}
	if err := r.checkLines(mem, writers); err != nil {
		return nil, err
	}
	if !r.Params.Table {
		return r, nil
	}
	for i, w := range writers {
		if err := r.checkTable(mem, i, w); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// replay marks ranks, not lines: a bitmap fits into the cache where the steps do not, hot ranks lie side by
// side, and only the few steps that count pay for the way from rank to line.
func (w *writer) replay() {
	w.last = make([]uint64, w.Lines)
	met := make([]uint64, w.Lines/64+1)
	left := w.Lines
	for step := w.Done; step > 0 && left > 0; step-- {
		rank := w.rank(w.value(step), step)
		if bit := uint64(1) << (rank % 64); met[rank/64]&bit == 0 {
			met[rank/64] |= bit
			w.last[w.lineOf(rank)] = step
			left--
		}
	}
	if w.Next == w.Done+1 {
		w.inFlightStep, w.inFlightLine = w.Next, w.line(w.value(w.Next), w.Next)
	}
}

// inFlight returns the step that is writing line now, or 0.
func (w *writer) inFlight(line uint64) uint64 {
	if w.inFlightStep != 0 && w.inFlightLine == line {
		return w.inFlightStep
	}
	return 0
}

func (r *Report) checkLines(mem Memory, writers []*writer) error {
	p := &r.Params
	buf := make([]byte, batchPages*memory.PageSize)
	n := uint64(len(writers))
	for page := uint64(0); page < p.Pages; page++ {
		in := page % batchPages
		if in == 0 {
			at := p.Base + memory.GPA(page*memory.PageSize)
			chunk := buf[:min(batchPages, p.Pages-page)*memory.PageSize]
			if err := mem.ReadAt(at, chunk); err != nil {
				return fmt.Errorf("reading the region at %#x: %w", uint64(at), err)
			}
		}
		for k := range p.LinesPerPage {
			all := page*uint64(p.LinesPerPage) + uint64(k)
			vcpu, line := int(all%n), all/n
			at := int(in)*memory.PageSize + p.place(page, k)*lineBytes
			r.checkLine(writers[vcpu], vcpu, line, (*[lineBytes]byte)(buf[at:]))
		}
	}
	r.LinesChecked = p.allLines()
	return nil
}

func (r *Report) checkLine(w *writer, vcpu int, line uint64, found *[lineBytes]byte) {
	last := w.last[line]
	at := w.differs(last, w.inFlight(line), r.Params.BytesPerLine, found)
	if at < 0 {
		return
	}
	r.add(w.diagnose(Mismatch{
		VCPU: vcpu, Line: line, Step: last, Offset: at, Address: r.Params.address(len(r.VCPUs), vcpu, line),
		Expected: w.content(last, r.Params.BytesPerLine), Found: *found,
	}, r.Params.BytesPerLine))
}

// differs returns the offset of the first byte that is of neither step, or -1. Step 0 writes zeros, but as
// inFlight it means none.
func (w *writer) differs(last, inFlight uint64, bytes int, found *[lineBytes]byte) int {
	var old, fresh uint64
	if last != 0 {
		old = w.value(last)
	}
	if inFlight != 0 {
		fresh = w.value(inFlight)
	}
	for i := range lineBytes / 8 {
		got := binary.LittleEndian.Uint64(found[8*i:])
		var want uint64
		if last != 0 {
			want = word(old, i, bytes)
		}
		if got == want {
			continue
		}
		also := want
		if inFlight != 0 {
			also = word(fresh, i, bytes)
		}
		for b := range 8 {
			if g := byte(got >> (8 * b)); g != byte(want>>(8*b)) && g != byte(also>>(8*b)) {
				return 8*i + b
			}
		}
	}
	return -1
}

// content is the whole line as step leaves it; step 0 is the line before its first store.
func (w *writer) content(step uint64, bytes int) (c [lineBytes]byte) {
	if step == 0 {
		return c
	}
	value := w.value(step)
	for i := range lineBytes / 8 {
		binary.LittleEndian.PutUint64(c[8*i:], word(value, i, bytes))
	}
	return c
}

func (r *Report) checkTable(mem Memory, vcpu int, w *writer) error {
	const perBatch = batchPages * memory.PageSize / 8
	buf := make([]byte, batchPages*memory.PageSize)
	for from := uint64(0); from < w.Lines; from += perBatch {
		n := min(perBatch, w.Lines-from)
		at := w.tableAt + memory.GPA(8*from)
		if err := mem.ReadAt(at, buf[:8*n]); err != nil {
			return fmt.Errorf("reading the table of vcpu %d at %#x: %w", vcpu, uint64(at), err)
		}
		for i := range n {
			line := from + i
			got := binary.LittleEndian.Uint64(buf[8*i:])
			if got == w.last[line] || got != 0 && got == w.inFlight(line) {
				continue
			}
			r.add(Mismatch{
				Kind: Table, VCPU: vcpu, Line: line, Address: at + memory.GPA(8*i),
				Step: w.last[line], FoundStep: got,
			})
		}
	}
	return nil
}

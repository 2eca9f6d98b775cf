package postcopy

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// LineMemory is a Memory for whose lines guest CPUs wait: *homed.Memory (coherence/homed). A line is named by its guest-physical
// address divided by 64. All methods are safe for concurrent use.
type LineMemory interface {
	Memory
	// NextLine returns an absent line that a guest CPU waits for, each once until RepeatLines. It waits until there is one.
	NextLine(ctx context.Context) (line uint64, err error)
	RepeatLines() // NextLine reports again what is waited for
	LacksLine(line uint64) bool
	// FillLine brings a line. False: it was here, and was left alone.
	FillLine(line uint64, content []byte) (bool, error)
}

const (
	pageLines = 64
	lineBytes = memory.PageSize / pageLines
)

// lineMisses is what a Pager knows of lines that are waited for.
type lineMisses struct {
	waits *misses // by line, each until it is in place
	rests *misses // by page, each from its first line's miss until all of it is in place

	mu    sync.Mutex
	asked map[uint64]struct{} // on the present fault connection, and not brought yet
}

func newLineMisses() *lineMisses { return &lineMisses{waits: newMisses(), rests: newMisses()} }

// begin starts with a new fault connection.
func (m *lineMisses) begin(now time.Time) {
	m.waits.restart(now)
	m.rests.restart(now)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = map[uint64]struct{}{}
}

// ask reports whether the line was not asked for yet.
func (m *lineMisses) ask(line uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, asked := m.asked[line]
	m.asked[line] = struct{}{}
	return !asked
}

// answered reports whether the line was asked for.
func (m *lineMisses) answered(line uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, asked := m.asked[line]
	delete(m.asked, line)
	return asked
}

// settlePage ends the misses of a page that is in place, and reports whether its rest was on its way because of one.
func (m *lineMisses) settlePage(page uint64) bool {
	if !m.rests.settle(page) {
		return false
	}
	for line := range uint64(pageLines) {
		m.waits.settle(page*pageLines + line)
	}
	return true
}

// readLineMisses asks for the lines that guest CPUs wait for.
func (r *run) readLineMisses() error {
	r.lines.RepeatLines()
	for {
		line, err := r.lines.NextLine(r.ctx)
		switch {
		case err == nil:
		case r.ctx.Err() != nil:
			return nil
		default:
			return fmt.Errorf("cannot learn which lines are waited for: %w", err)
		}
		if err := r.askLine(line); err != nil {
			return err
		}
	}
}

func (r *run) askLine(line uint64) error {
	now, page := time.Now(), line/pageLines
	m := r.lineMisses
	m.waits.open(line, now)
	m.rests.openFirst(page, now)
	if !r.lines.LacksLine(line) {
		m.waits.settle(line)
		if !r.mem.Has(pageGPA(page)) {
			m.rests.settle(page)
		}
		return nil
	}
	if !m.ask(line) {
		return nil
	}
	r.stats.lineFaults.Add(1)
	r.asked.add(page) // the rest comes unasked, behind the line
	payload := wire.AppendRequestLine(nil, line)
	r.asking.Lock()
	defer r.asking.Unlock()
	return r.send(func() error { return r.fault.Writer.Bytes(wire.TypeRequestLine, payload) })
}

// line stores the answer to a REQUEST_LINE.
func (a *arrivals) line(f wire.Frame) error {
	line, content, err := wire.DecodeLine(f.Payload)
	if err != nil {
		return err
	}
	m := a.lineMisses
	if !m.answered(line) {
		return protocolErrorf("the fault connection brings line %#x, which nobody asked for", line)
	}
	a.alive()
	a.stats.lineBytes.Add(uint64(wire.HeaderBytes + f.WireBytes))
	taken, err := a.lines.FillLine(line, content)
	if err != nil {
		return fmt.Errorf("cannot store guest line %#x: %w", line, err)
	}
	m.waits.settle(line)
	if !taken {
		a.stats.linesLate.Add(1)
		return nil
	}
	a.stats.lineFills.Add(1)
	if page := line / pageLines; !a.mem.Has(pageGPA(page)) {
		m.settlePage(page) // it was the last line of its page
	}
	return nil
}

// answerLine sends a line at once, and leaves the rest of its page to the other goroutine. A page that somebody else has
// claimed is on its way already.
func (a *answerer) answerLine(payload []byte) error {
	s := a.server
	line, err := wire.DecodeRequestLine(payload)
	if err != nil {
		return err
	}
	page := line / pageLines
	if !s.pages.has(page) {
		return protocolErrorf("%s of line %#x, which the destination does not lack", wire.TypeRequestLine, line)
	}
	s.gate.close()
	err = a.sendLine(line)
	s.gate.reopen()
	s.cursor.Store(page + 1)
	a.queue([]uint64{page})
	return err
}

func (a *answerer) sendLine(line uint64) error {
	s := a.server
	off := line % pageLines * lineBytes
	a.line = a.line[:0]
	if err := s.mem.ViewPage(pageGPA(line/pageLines), func(content []byte) {
		a.line = wire.AppendLine(a.line, line, content[off:off+lineBytes])
	}); err != nil {
		return fmt.Errorf("cannot read guest line %#x: %w", line, err)
	}
	a.writing.Lock()
	defer a.writing.Unlock()
	return a.conn.send(a.ctx, s.opts.PeerTimeout, func() error { return a.conn.Writer.Bytes(wire.TypeLine, a.line) })
}

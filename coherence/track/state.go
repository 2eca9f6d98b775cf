package track

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/fineline-vmm/fineline/memory"
)

// ErrBadState: a saved context cannot be one of this machine.
var ErrBadState = errors.New("the saved tracking is damaged")

// ContextState is a saved context. Its size is bounded: ranges by Options.MaxRanges, what was found by
// maxFoundBytes, beyond which all lines of the ranges count as found.
type ContextState struct {
	Mode       Mode `json:"mode"`
	CountBytes bool `json:"count_bytes"`
	Armed      bool `json:"armed"`
	Began      bool `json:"began"`
	// Ranges are pairs of varints, in lines: the gap to the end of the range before, and the size.
	Ranges []byte `json:"ranges"`
	// Found are records: a varint of the pages from the page before, a byte of flags, 8 bytes of
	// lines, and a varint of changed bytes if it is counted.
	Found    []byte `json:"found"`
	FoundAll bool   `json:"found_all"`
}

const (
	maxFoundBytes = 256 << 10 // of a context: those of a device together fit a saved machine

	minRecordBytes = 10

	foundInexact = 1 << 0
	foundCounted = 1 << 1
)

// State looks a last time and saves the context, which goes on. The guest must be paused.
func (c *Context) State() (ContextState, error) {
	e := c.e
	e.mu.Lock()
	defer e.mu.Unlock()
	if c.closed {
		return ContextState{}, fmt.Errorf("%w: it is closed", ErrState)
	}
	if c.armed && c.opts.Mode == Diff {
		if err := e.look(); err != nil {
			return ContextState{}, err
		}
	}
	e.exact.mu.Lock()
	defer e.exact.mu.Unlock()
	if err := e.exact.harvest(c, true); err != nil {
		return ContextState{}, err
	}
	all := newLineSet(c.opts.CountBytes)
	if c.draining.sizePages+c.found.sizePages > maxFoundBytes/minRecordBytes {
		all.tooMany = true
	} else {
		c.draining.each(all.add)
		c.found.each(all.add)
	}
	s := ContextState{
		Mode: c.opts.Mode, CountBytes: c.opts.CountBytes, Armed: c.armed || c.restored, Began: c.began,
		Ranges: c.ranges.encode(),
	}
	s.Found, s.FoundAll = all.encode()
	return s, nil
}

// RestoreContext makes a context as it was saved. If it was armed it is again after Resume. Errors wrap
// ErrBadState, or are those of NewContext and Register.
func (e *Engine) RestoreContext(s ContextState) (*Context, error) {
	c, err := e.NewContext(ContextOptions{Mode: s.Mode, CountBytes: s.CountBytes})
	if err != nil {
		return nil, err
	}
	if err := c.restore(s); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Context) restore(s ContextState) error {
	list, err := decodeRanges(s.Ranges, c.e.opts.MaxRanges)
	if err != nil {
		return err
	}
	if err := c.Register(list); err != nil {
		return fmt.Errorf("%w: %w", ErrBadState, err)
	}
	c.e.mu.Lock()
	defer c.e.mu.Unlock()
	c.restored, c.began = s.Armed, s.Began || s.Armed
	if s.FoundAll {
		c.ranges.eachPage(func(page memory.GPA, lines uint64) {
			c.found.add(Page{GPA: page, Lines: lines, Inexact: true})
		})
		return nil
	}
	return c.decodeFound(s.Found)
}

func (rs ranges) encode() (out []byte) {
	at := memory.GPA(0)
	for _, r := range rs {
		out = binary.AppendUvarint(out, uint64(r.Base-at)/LineBytes)
		out = binary.AppendUvarint(out, r.SizeBytes/LineBytes)
		at = r.end()
	}
	return out
}

// decodeRanges checks the form only; Register checks that they are RAM.
func decodeRanges(in []byte, most int) (list []Range, err error) {
	at := uint64(0) // in lines
	for len(in) > 0 {
		var gap, size uint64
		if gap, in, err = uvarint(in); err != nil {
			return nil, err
		}
		if size, in, err = uvarint(in); err != nil {
			return nil, err
		}
		const lines = 1 << 58
		if gap > lines || size > lines || at > lines || len(list) == most {
			return nil, fmt.Errorf("%w: a range is impossible", ErrBadState)
		}
		list = append(list, Range{memory.GPA((at + gap) * LineBytes), size * LineBytes})
		at += gap + size
	}
	return list, nil
}

func uvarint(in []byte) (v uint64, rest []byte, err error) {
	v, n := binary.Uvarint(in)
	if n <= 0 {
		return 0, nil, fmt.Errorf("%w: it ends too early", ErrBadState)
	}
	return v, in[n:], nil
}

// encode returns the records, or that they are too many.
func (s *lineSet) encode() (out []byte, all bool) {
	if s.tooMany {
		return nil, true
	}
	at := uint64(0) // page number
	s.each(func(p Page) {
		if len(out) > maxFoundBytes {
			return
		}
		page := uint64(p.GPA) / memory.PageSize
		out = binary.AppendUvarint(out, page-at)
		at = page
		flags := byte(0)
		if p.Inexact {
			flags |= foundInexact
		}
		if p.Counted {
			flags |= foundCounted
		}
		out = append(out, flags)
		out = binary.LittleEndian.AppendUint64(out, p.Lines)
		if p.Counted {
			out = binary.AppendUvarint(out, uint64(p.ChangedBytes))
		}
	})
	if len(out) > maxFoundBytes {
		return nil, true
	}
	return out, false
}

// decodeFound adds saved records to what was found.
func (c *Context) decodeFound(in []byte) (err error) {
	page := uint64(0)
	for len(in) > 0 {
		var delta, changed uint64
		if delta, in, err = uvarint(in); err != nil {
			return err
		}
		if len(in) < 9 {
			return fmt.Errorf("%w: it ends too early", ErrBadState)
		}
		flags, lines := in[0], binary.LittleEndian.Uint64(in[1:])
		in = in[9:]
		if flags&foundCounted != 0 {
			if changed, in, err = uvarint(in); err != nil {
				return err
			}
		}
		page += delta
		p := Page{
			GPA: memory.GPA(page * memory.PageSize), Lines: lines,
			Inexact: flags&foundInexact != 0, Counted: flags&foundCounted != 0, ChangedBytes: uint32(changed),
		}
		if page > 1<<52 || lines == 0 || c.ranges.lines(p.GPA)&lines != lines {
			return fmt.Errorf("%w: lines outside of the ranges at page %#x", ErrBadState, page)
		}
		c.found.add(p)
	}
	return nil
}

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
// maxFoundBytes, beyond which whole pages count as found, and at last all lines of the ranges.
type ContextState struct {
	Mode       Mode `json:"mode"`
	CountBytes bool `json:"count_bytes"`
	Armed      bool `json:"armed"`
	Began      bool `json:"began"`
	// Ranges are pairs of varints, in lines: the gap to the end of the range before, and the size.
	Ranges []byte `json:"ranges"`
	// Found are records: a varint of the pages from the page before, a byte of flags, 8 bytes of
	// lines, and a varint of changed bytes if it is counted.
	Found []byte `json:"found"`
	// FoundPages are runs of pages, pairs of varints: the gap to the end of the run before, and the size.
	FoundPages []byte `json:"found_pages"`
	FoundAll   bool   `json:"found_all"`
}

const (
	maxFoundBytes = 256 << 10 // of a context: those of a device together fit a saved machine

	// A record has at most 10 bytes beside two varints, which are of 1 to 10 bytes: mostly short.
	maxFoundPages = maxFoundBytes / 20

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
	s := ContextState{
		Mode: c.opts.Mode, CountBytes: c.opts.CountBytes, Armed: c.armed || c.restored, Began: c.began,
		Ranges: c.ranges.encode(),
	}
	if b := e.exact.blind; c.armed && c.opts.Mode != Diff && b != nil && b.Len() > maxFoundPages {
		s.FoundAll = true // without a walk: the guest stands still
		return s, nil
	}
	if err := e.exact.harvest(c, true); err != nil {
		return ContextState{}, err
	}
	if c.draining.sizePages+c.found.sizePages > maxFoundPages {
		s.FoundPages, s.FoundAll = c.encodePages()
		return s, nil
	}
	all := newLineSet(c.opts.CountBytes)
	c.draining.each(all.add)
	c.found.each(all.add)
	s.Found = all.encode()
	return s, nil
}

// encodePages returns the runs of pages with a found line, or that they are too many.
func (c *Context) encodePages() (out []byte, tooMany bool) {
	pages := c.e.mem.NewPageSet()
	for _, set := range []*lineSet{c.draining, c.found} {
		set.each(func(p Page) { pages.Add(p.GPA) })
	}
	var runs ranges
	pages.Range(func(gpa memory.GPA) bool {
		runs = runs.appendJoined([]Range{{gpa, memory.PageSize}})
		return true
	})
	at := memory.GPA(0)
	for _, r := range runs {
		out = binary.AppendUvarint(out, uint64(r.Base-at)/memory.PageSize)
		out = binary.AppendUvarint(out, r.SizeBytes/memory.PageSize)
		at = r.end()
	}
	if len(out) > maxFoundBytes {
		return nil, true
	}
	return out, false
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
	if err := c.decodePages(s.FoundPages); err != nil {
		return err
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
		const lines = 1 << 57 // an address below 2^63, twice which does not wrap
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

// encode returns the records.
func (s *lineSet) encode() (out []byte) {
	at := uint64(0) // page number
	s.each(func(p Page) {
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
	return out
}

// decodePages adds all lines of saved runs of pages to what was found.
func (c *Context) decodePages(in []byte) error {
	runs, err := decodeRanges(in, len(in))
	if err != nil {
		return err
	}
	for _, r := range runs { // which are in pages where ranges are in lines
		first, size := memory.GPA(uint64(r.Base)/LineBytes*memory.PageSize), r.SizeBytes/LineBytes
		if size > c.e.mem.Pages() || !c.e.mem.Contains(first, size*memory.PageSize) {
			return fmt.Errorf("%w: %d pages at %#x", ErrBadState, size, uint64(first))
		}
		for page := first; page < first+memory.GPA(size)*memory.PageSize; page += memory.PageSize {
			lines := c.ranges.lines(page)
			if lines == 0 {
				return fmt.Errorf("%w: page %#x is outside of the ranges", ErrBadState, uint64(page))
			}
			c.found.add(Page{GPA: page, Lines: lines, Inexact: true})
		}
	}
	return nil
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

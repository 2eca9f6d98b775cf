package follow

import (
	"errors"
	"fmt"
	"slices"

	"github.com/fineline-vmm/fineline/guest/track/abi"
	"github.com/fineline-vmm/fineline/guest/track/procmem"
)

// Sizes in bytes.
const (
	PageBytes = procmem.PageBytes
	LineBytes = 64
)

// AllLines is the mask of a whole page.
const AllLines = ^uint64(0)

// Table is a page table. Read fills entries with those of consecutive pages from address on.
type Table interface {
	Read(address uint64, entries []procmem.Entry) error
}

// Context is a tracker of frames. An error of Harvest, Register or Unregister leaves it in no known state.
type Context interface {
	Register([]abi.Range) error
	Unregister([]abi.Range) error
	Start() error
	Harvest(emit func(abi.Record)) error
}

// Flags say how a page came into a report.
type Flags uint8

// The flags. A page without any has exactly the lines that the device saw written.
const (
	Inexact Flags = 1 << iota // more lines may be set than were written: the device says so
	Moved                     // the page changed its frame, or went to swap or came back: all lines are set
	New                       // it has come into memory: all lines are set
	Gone                      // it is nowhere any more, private memory reads as zeros: all lines are set
	Counted                   // ChangedBytes is known
)

// Page is what a report says of one page.
type Page struct {
	Address      uint64 // virtual
	Lines        uint64 // bit i: the 64 bytes at Address + 64*i; never 0
	ChangedBytes uint32 // when Counted
	Flags        Flags
}

// Exact says whether Lines are the lines that were written, no more.
func (p Page) Exact() bool { return p.Flags&^Counted == 0 }

// Report is one harvest.
type Report struct {
	Pages   []Page // by rising address
	Present int    // pages in frames that are tracked now
}

// ErrBroken: an earlier failure left device and Follower in disagreement.
var ErrBroken = errors.New("tracking has failed before")

// rounds is how often a page that moves while it is registered is chased in one harvest.
const rounds = 4

// Follower tracks ranges of one address space by one context. It is for one goroutine.
type Follower struct {
	table   Table
	context Context
	spans   []span
	frames  owners
	buf     []procmem.Entry
	broken  error
	stale   map[uint64]bool // frames that are registered and in no page of ours any more
	carried []change        // seen by Enrol, for the next report
}

// span is a run of followed pages with R of each.
type span struct {
	start uint64
	state []state
}

func (s *span) end() uint64 { return s.start + uint64(len(s.state))*PageBytes }

// state is what of a page table's entry tells that a page has changed its place: 0 nowhere, or a frame, or
// a place in swap.
type state uint64

const (
	present   state = 1 << 63
	swapped   state = 1 << 62
	placeMask state = 1<<55 - 1
	// unknown is a page that would not stay: no entry is equal to it, so the next harvest reports it.
	unknown state = 1 << 60
)

func stateOf(e procmem.Entry) state { return state(e) & (present | swapped | placeMask) }

func (s state) frame() (uint64, bool) { return uint64(s & placeMask), s&present != 0 }

// change is a page whose state is not R.
type change struct {
	at       *state // R of the page
	address  uint64
	from, to state
}

// NewFollower returns a Follower of nothing. The context must be new, too.
func NewFollower(table Table, context Context) *Follower {
	return &Follower{
		table: table, context: context, stale: map[uint64]bool{},
		frames: owners{first: map[uint64]uint64{}, more: map[uint64]map[uint64]bool{}},
	}
}

// SetRanges sets what is followed, from the next Start or Harvest on: whole pages that overlap the ranges.
func (f *Follower) SetRanges(ranges []Range) error {
	ranges, err := Normalize(ranges)
	if err != nil {
		return err
	}
	if f.covers(ranges) {
		return nil
	}
	if total := Bytes(ranges); total > MaxBytes {
		return fmt.Errorf("%w: %d GiB, at most %d", ErrTooLarge, total>>30, MaxBytes>>30)
	}
	old := f.spans
	f.spans = make([]span, len(ranges))
	for i, r := range ranges {
		f.spans[i] = span{start: r.Address, state: make([]state, r.Bytes/PageBytes)}
	}
	f.inherit(old)
	return nil
}

// covers says whether the spans are these ranges already.
func (f *Follower) covers(ranges []Range) bool {
	return slices.EqualFunc(f.spans, ranges, func(s span, r Range) bool {
		return s.start == r.Address && s.end() == r.Address+r.Bytes
	})
}

// inherit takes over R of pages that are still followed and lets go of the others' frames.
func (f *Follower) inherit(old []span) {
	i := 0
	for o := range old {
		for p, s := range old[o].state {
			if s == 0 {
				continue
			}
			address := old[o].start + uint64(p)*PageBytes
			for i < len(f.spans) && f.spans[i].end() <= address {
				i++
			}
			if i < len(f.spans) && f.spans[i].start <= address {
				f.spans[i].state[(address-f.spans[i].start)/PageBytes] = s
			} else if frame, ok := s.frame(); ok && f.frames.drop(frame, address) {
				f.stale[frame] = true
			}
		}
	}
}

// Start registers the pages and starts the context: each write after its return is in a later report.
func (f *Follower) Start() error {
	if f.broken != nil {
		return f.broken
	}
	if _, err := f.enrol(); err != nil {
		return f.fail(err)
	}
	if err := f.context.Start(); err != nil {
		return f.fail(err)
	}
	// The device's view begins with its start: what moved meanwhile is registered anew.
	if _, err := f.enrol(); err != nil {
		return f.fail(err)
	}
	return nil
}

// Enrol registers added ranges at once: each write to them from its return on is in a later report. It is for
// ranges that SetRanges has added after Start; without it the next Harvest reports them as New.
func (f *Follower) Enrol(added []Range) error {
	if f.broken != nil {
		return f.broken
	}
	changes, err := f.enrol()
	if err != nil {
		return f.fail(err)
	}
	for _, c := range changes {
		if !slices.ContainsFunc(added, func(r Range) bool { return c.address-r.Address < r.Bytes }) {
			f.carried = append(f.carried, c)
		}
	}
	return nil
}

// Harvest reports what was written since the last one, or since Start.
func (f *Follower) Harvest() (*Report, error) {
	if f.broken != nil {
		return nil, f.broken
	}
	records, err := f.look() // H
	if err != nil {
		return nil, f.fail(err)
	}
	changes, err := f.enrol() // P, G, Q, U
	if err != nil {
		return nil, f.fail(err)
	}
	changes = append(changes, f.carried...)
	f.carried = nil
	return f.report(records, changes), nil
}

func (f *Follower) fail(err error) error {
	f.broken = fmt.Errorf("%w: %w", ErrBroken, err)
	return err
}

func (f *Follower) look() ([]abi.Record, error) {
	var records []abi.Record
	err := f.context.Harvest(func(r abi.Record) { records = append(records, r) })
	return records, err
}

// enrol brings R and the device to the page table's state and returns the pages that had changed.
func (f *Follower) enrol() ([]change, error) {
	changes, err := f.scan()
	if err != nil {
		return nil, err
	}
	todo := changes
	for i := 0; i < rounds && len(todo) > 0; i++ {
		if err := f.settle(todo); err != nil {
			return nil, err
		}
		if todo, err = f.confirm(todo); err != nil {
			return nil, err
		}
	}
	for _, c := range todo { // still on the move
		f.leave(c)
		*c.at = unknown
	}
	for i := range changes {
		changes[i].to = *changes[i].at // it may have gone on since P
	}
	return changes, f.unregisterStale()
}

// scan compares the page table with R.
func (f *Follower) scan() ([]change, error) {
	const chunk = 1 << 16
	if f.buf == nil {
		f.buf = make([]procmem.Entry, chunk)
	}
	var changes []change
	for i := range f.spans {
		s := &f.spans[i]
		for from := 0; from < len(s.state); from += chunk {
			known := s.state[from:min(from+chunk, len(s.state))]
			address := s.start + uint64(from)*PageBytes
			entries := f.buf[:len(known)]
			if err := f.table.Read(address, entries); err != nil {
				return nil, err
			}
			for p, e := range entries {
				if now := stateOf(e); now != known[p] {
					changes = append(changes, change{at: &known[p], address: address + uint64(p)*PageBytes, from: known[p], to: now})
				}
			}
		}
	}
	return changes, nil
}

// settle makes R of the changed pages their new state and registers their frames.
func (f *Follower) settle(changes []change) error {
	for _, c := range changes {
		f.leave(c)
		*c.at = c.to
	}
	var fresh []uint64
	for _, c := range changes {
		if frame, ok := c.to.frame(); ok && f.frames.add(frame, c.address) {
			fresh = append(fresh, frame)
		}
	}
	return f.register(fresh)
}

// leave takes the page of c out of its frame, which stays registered until the end of the harvest.
func (f *Follower) leave(c change) {
	if frame, ok := c.at.frame(); ok && f.frames.drop(frame, c.address) {
		f.stale[frame] = true
	}
}

// confirm reads the entries of changes again and returns those that are not as settled.
func (f *Follower) confirm(changes []change) ([]change, error) {
	var again []change
	for len(changes) > 0 {
		n := run(changes, len(f.buf))
		entries := f.buf[:n]
		if err := f.table.Read(changes[0].address, entries); err != nil {
			return nil, err
		}
		for i, c := range changes[:n] {
			if now := stateOf(entries[i]); now != c.to {
				again = append(again, change{at: c.at, address: c.address, from: c.from, to: now})
			}
		}
		changes = changes[n:]
	}
	return again, nil
}

// run is how many changes, at most max, are of consecutive pages.
func run(changes []change, max int) int {
	n := 1
	for n < len(changes) && n < max && changes[n].address == changes[n-1].address+PageBytes {
		n++
	}
	return n
}

// report joins the device's records and the changes.
func (f *Follower) report(records []abi.Record, changes []change) *Report {
	r := &Report{Present: f.frames.pages()}
	whole := make(map[uint64]bool, len(changes))
	for _, c := range changes {
		if whole[c.address] {
			continue // carried, and changed again
		}
		whole[c.address] = true
		r.Pages = append(r.Pages, Page{Address: c.address, Lines: AllLines, Flags: c.flag()})
	}
	for _, record := range records {
		for address := range f.frames.of(record.Page / PageBytes) {
			if !whole[address] {
				r.Pages = append(r.Pages, pageOf(record, address))
			}
		}
	}
	slices.SortFunc(r.Pages, func(a, b Page) int {
		if a.Address < b.Address {
			return -1
		}
		return 1
	})
	return r
}

// flag says what kind of change the window saw.
func (c change) flag() Flags {
	const somewhere = present | swapped | unknown
	switch {
	case c.to&somewhere == 0:
		return Gone
	case c.from&somewhere != 0:
		return Moved
	}
	return New
}

func pageOf(r abi.Record, address uint64) Page {
	p := Page{Address: address, Lines: r.Lines}
	if r.Flags&abi.RecordInexact != 0 {
		p.Flags |= Inexact
	}
	if r.Flags&abi.RecordCounted != 0 {
		p.Flags |= Counted
		p.ChangedBytes = r.ChangedBytes
	}
	return p
}

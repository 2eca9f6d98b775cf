package fpga

import (
	"errors"

	"github.com/fineline-vmm/fineline/coherence/track"
	"github.com/fineline-vmm/fineline/memory"
)

// transferBytes bounds one transfer to or from guest memory, and so what follows a reset.
const transferBytes = 4096

// checkBuffer checks count entries of size bytes at the command's address.
func (d *Device) checkBuffer(c command, size uint64) error {
	switch {
	case c.count == 0 || c.count > maxCount:
		return errCount
	case c.address%addressAlign != 0 || !d.mem.Contains(c.address, uint64(c.count)*size):
		return errAddress
	}
	return nil
}

// withRanges calls use with the command's scatter list.
func (d *Device) withRanges(epoch uint64, c command, use func([]track.Range) error) error {
	if err := d.checkBuffer(c, rangeBytes); err != nil {
		return err
	}
	ranges, err := d.readRanges(epoch, c)
	if err != nil {
		return err
	}
	return use(ranges)
}

// readRanges copies a scatter list that was checked to be RAM; each entry is read once.
func (d *Device) readRanges(epoch uint64, c command) ([]track.Range, error) {
	left := int(c.count) * rangeBytes
	ranges := make([]track.Range, 0, c.count)
	piece := make([]byte, min(left, transferBytes))
	for at := c.address; left > 0; at += memory.GPA(len(piece)) {
		piece = piece[:min(left, transferBytes)]
		if !d.mayAccess(epoch) {
			return nil, errAddress
		}
		if err := d.mem.ReadAt(at, piece); err != nil {
			return nil, err
		}
		for p := piece; len(p) > 0; p = p[rangeBytes:] {
			ranges = append(ranges, parseRange(p))
		}
		left -= len(piece)
	}
	return ranges, nil
}

// harvest fills the guest's buffer, all of which was checked to be RAM before the first record is taken
// from the engine.
func (d *Device) harvest(epoch uint64, c command, e *entry, done *Completion) error {
	switch {
	case c.flags&harvestNoSnoop != 0 && e.flags&createModeMask != uint32(track.Homed):
		return errFlags
	case !e.started:
		return errState
	}
	if err := d.checkBuffer(c, recordBytes); err != nil {
		return err
	}
	s := &sink{d: d, epoch: epoch, at: c.address, room: int(c.count), buf: make([]byte, 0, transferBytes)}
	take := e.Harvest
	if c.flags&harvestNoSnoop != 0 {
		take = e.HarvestUnsnooped
	}
	more, err := take(int(c.count), s.emit)
	s.flush()
	done.Result = s.stored
	if more {
		done.Flags = completionMore
	}
	d.countRecords(s.stored)
	return errors.Join(s.err, err)
}

func (d *Device) countRecords(n uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.metrics.Records += n
}

// sink stores records to a guest's buffer, some at a time.
type sink struct {
	d      *Device
	epoch  uint64
	at     memory.GPA // of the next record to store
	room   int        // records that may still be emitted
	buf    []byte     // emitted, not stored
	stored uint64     // records
	err    error
}

// errTooMany is the engine's bug; the guest's memory behind the buffer stays as it is.
var errTooMany = errors.New("the engine harvested more pages than it was asked for")

func (s *sink) emit(p track.Page) {
	if s.room == 0 {
		s.err = errTooMany
		return
	}
	s.room--
	s.buf = appendRecord(s.buf, p)
	if len(s.buf) == transferBytes {
		s.flush()
	}
}

// flush stores what was emitted, unless the guest has reset the device or forbidden it to reach
// memory: then the rest is lost.
func (s *sink) flush() {
	if s.err == nil && !s.d.mayAccess(s.epoch) {
		s.err = errAddress
	}
	if s.err == nil {
		s.err = s.d.mem.WriteAt(s.at, s.buf)
	}
	if s.err == nil {
		s.stored += uint64(len(s.buf) / recordBytes)
		s.at += memory.GPA(len(s.buf))
	}
	s.buf = s.buf[:0]
}

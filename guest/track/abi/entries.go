package abi

import "encoding/binary"

// Sizes of entries in bytes, and the most that a count field may say.
const (
	CommandBytes    = 64
	CompletionBytes = 32
	RangeBytes      = 16
	RecordBytes     = 32

	MaxCount = 65536
)

// Op is what a command does.
type Op uint32

// The operations.
const (
	OpCreate     Op = 1
	OpDestroy    Op = 2
	OpRegister   Op = 3
	OpUnregister Op = 4
	OpStart      Op = 5
	OpStop       Op = 6
	OpHarvest    Op = 7
)

// Flags of commands, records and completions.
const (
	ModeDiff         = 0
	ModeStores       = 1
	ModeHomed        = 2
	CreateModeMask   = 0xff
	CreateCountBytes = 1 << 8

	HarvestNoSnoop = 1 << 0

	RecordInexact = 1 << 0
	RecordCounted = 1 << 1

	CompletionMore = 1 << 0
)

// Statuses of completions.
const (
	OK               = 0
	ErrOpcode        = 1
	ErrFlags         = 2
	ErrContext       = 3
	ErrState         = 4
	ErrAddress       = 5
	ErrCount         = 6
	ErrNotRegistered = 7
	ErrNoSpace       = 8
	ErrHost          = 9
)

// Command is one entry of the command ring.
type Command struct {
	Op      Op
	Flags   uint32
	Cookie  uint64 // comes back in the completion
	Context uint32
	Count   uint32 // ranges of the list, or records that the buffer holds
	Address uint64 // of the list or the buffer
}

// Put encodes c into CommandBytes bytes of b.
func (c Command) Put(b []byte) {
	le := binary.LittleEndian
	clear(b[:CommandBytes])
	le.PutUint32(b[0:], uint32(c.Op))
	le.PutUint32(b[4:], c.Flags)
	le.PutUint64(b[8:], c.Cookie)
	le.PutUint32(b[16:], c.Context)
	le.PutUint32(b[20:], c.Count)
	le.PutUint64(b[24:], c.Address)
}

// GetCommand decodes what Put encoded.
func GetCommand(b []byte) Command {
	le := binary.LittleEndian
	return Command{
		Op: Op(le.Uint32(b[0:])), Flags: le.Uint32(b[4:]), Cookie: le.Uint64(b[8:]),
		Context: le.Uint32(b[16:]), Count: le.Uint32(b[20:]), Address: le.Uint64(b[24:]),
	}
}

// Completion is one entry of the completion ring.
type Completion struct {
	Cookie   uint64
	Result   uint64
	Status   uint32
	Flags    uint32
	Context  uint32
	Sequence uint32 // written last: 1 + the number of completions put before, modulo 2^32
}

// SequenceOffset is where Sequence is in a completion.
const SequenceOffset = 28

// Put encodes c into CompletionBytes bytes of b.
func (c Completion) Put(b []byte) {
	le := binary.LittleEndian
	le.PutUint64(b[0:], c.Cookie)
	le.PutUint64(b[8:], c.Result)
	le.PutUint32(b[16:], c.Status)
	le.PutUint32(b[20:], c.Flags)
	le.PutUint32(b[24:], c.Context)
	le.PutUint32(b[SequenceOffset:], c.Sequence)
}

// GetCompletion decodes a completion.
func GetCompletion(b []byte) Completion {
	le := binary.LittleEndian
	return Completion{
		Cookie: le.Uint64(b[0:]), Result: le.Uint64(b[8:]), Status: le.Uint32(b[16:]),
		Flags: le.Uint32(b[20:]), Context: le.Uint32(b[24:]), Sequence: le.Uint32(b[SequenceOffset:]),
	}
}

// Range is whole lines of physical memory.
type Range struct {
	Address uint64 // a multiple of 64
	Bytes   uint64 // a multiple of 64, not 0
}

// Put encodes r into RangeBytes bytes of b.
func (r Range) Put(b []byte) {
	binary.LittleEndian.PutUint64(b[0:], r.Address)
	binary.LittleEndian.PutUint64(b[8:], r.Bytes)
}

// GetRange decodes a range.
func GetRange(b []byte) Range {
	return Range{Address: binary.LittleEndian.Uint64(b[0:]), Bytes: binary.LittleEndian.Uint64(b[8:])}
}

// Record is what a harvest says of one page.
type Record struct {
	Page         uint64 // its physical address
	Lines        uint64 // bit i: line i
	ChangedBytes uint32 // when RecordCounted
	Flags        uint32
}

// Put encodes r into RecordBytes bytes of b.
func (r Record) Put(b []byte) {
	le := binary.LittleEndian
	le.PutUint64(b[0:], r.Page)
	le.PutUint64(b[8:], r.Lines)
	le.PutUint32(b[16:], r.ChangedBytes)
	le.PutUint32(b[20:], r.Flags)
	le.PutUint64(b[24:], 0)
}

// GetRecord decodes a record.
func GetRecord(b []byte) Record {
	le := binary.LittleEndian
	return Record{Page: le.Uint64(b[0:]), Lines: le.Uint64(b[8:]), ChangedBytes: le.Uint32(b[16:]), Flags: le.Uint32(b[20:])}
}

package fpga

import (
	"encoding/binary"
	"fmt"

	"github.com/fineline-vmm/fineline/coherence/track"
	"github.com/fineline-vmm/fineline/memory"
)

// The ABI, as guest/include/fineline_fpga.h has it; a test compares the two.

// PCI identity and BAR 0.
const (
	vendorID = 0xf11e
	deviceID = 0x0001
	class    = 0x120000
	barBytes = 4096
)

// Offsets of registers.
const (
	regID          = 0x00
	regVersion     = 0x04
	regFeatures    = 0x08
	regMaxContexts = 0x0c
	regMaxRanges   = 0x10
	regControl     = 0x14
	regStatus      = 0x18
	regError       = 0x1c
	regCmdRing     = 0x20
	regCplRing     = 0x28
	regCmdEntries  = 0x30
	regCplEntries  = 0x34
	regDoorbell    = 0x38
	regCmdTaken    = 0x3c
	regCplTaken    = 0x40
	regCplPut      = 0x44
	regsBytes      = 0x48
)

const (
	magic      = 0x4b544c46
	abiVersion = 1

	controlEnable    = 1 << 0
	controlInterrupt = 1 << 1
	controlMask      = controlEnable | controlInterrupt

	statusEnabled = 1 << 0
	statusError   = 1 << 1

	ringBadAddress = 1
	ringBadEntries = 2
	ringBadIndex   = 3

	ringAlign  = 64 // bytes
	minEntries = 2
	maxEntries = 4096
)

const (
	opCreate     = 1
	opDestroy    = 2
	opRegister   = 3
	opUnregister = 4
	opStart      = 5
	opStop       = 6
	opHarvest    = 7

	createModeMask   = 0xff
	createCountBytes = 1 << 8
	harvestNoSnoop   = 1 << 0

	recordInexact = 1 << 0
	recordCounted = 1 << 1

	completionMore = 1 << 0

	maxCount     = 65536 // ranges or records of one command
	addressAlign = 8     // of lists and buffers
)

// status is how a command ended. As an error it says so to the guest and to nobody else.
type status uint32

const (
	statusOK         status = 0
	errOpcode        status = 1
	errFlags         status = 2
	errContext       status = 3
	errState         status = 4
	errAddress       status = 5
	errCount         status = 6
	errNotRegistered status = 7
	errNoSpace       status = 8
	errHost          status = 9
	statusCount             = 10
)

func (s status) Error() string { return fmt.Sprintf("status %d", uint32(s)) }

// Sizes of what lies in guest memory.
const (
	commandBytes    = 64
	completionBytes = 32
	rangeBytes      = 16
	recordBytes     = 32

	sequenceOffset = 28 // in a completion
)

// command is an entry of the command ring.
type command struct {
	opcode, flags  uint32
	cookie         uint64
	context, count uint32
	address        memory.GPA
	reserved       bool // a reserved field is not 0
}

func parseCommand(p *[commandBytes]byte) command {
	le := binary.LittleEndian
	return command{
		opcode:   le.Uint32(p[0:]),
		flags:    le.Uint32(p[4:]),
		cookie:   le.Uint64(p[8:]),
		context:  le.Uint32(p[16:]),
		count:    le.Uint32(p[20:]),
		address:  memory.GPA(le.Uint64(p[24:])),
		reserved: [32]byte(p[32:]) != [32]byte{},
	}
}

// Completion is an entry of the completion ring, without its sequence.
type Completion struct {
	Cookie  uint64 `json:"cookie"`
	Result  uint64 `json:"result"`
	Status  uint32 `json:"status"`
	Flags   uint32 `json:"flags"`
	Context uint32 `json:"context"`
}

// body is what lies before the sequence.
func (c *Completion) body() []byte {
	le := binary.LittleEndian
	p := make([]byte, 0, sequenceOffset)
	p = le.AppendUint64(p, c.Cookie)
	p = le.AppendUint64(p, c.Result)
	p = le.AppendUint32(p, c.Status)
	p = le.AppendUint32(p, c.Flags)
	return le.AppendUint32(p, c.Context)
}

func parseRange(p []byte) track.Range {
	le := binary.LittleEndian
	return track.Range{Base: memory.GPA(le.Uint64(p[0:])), SizeBytes: le.Uint64(p[8:])}
}

func appendRecord(p []byte, page track.Page) []byte {
	var flags uint32
	if page.Inexact {
		flags |= recordInexact
	}
	if page.Counted {
		flags |= recordCounted
	}
	le := binary.LittleEndian
	p = le.AppendUint64(p, uint64(page.GPA))
	p = le.AppendUint64(p, page.Lines)
	p = le.AppendUint32(p, page.ChangedBytes)
	p = le.AppendUint32(p, flags)
	return le.AppendUint64(p, 0)
}

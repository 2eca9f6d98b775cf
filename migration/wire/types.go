package wire

import "fmt"

// Magic opens every frame: "FLMG" in memory order.
const Magic uint32 = 'F' | 'L'<<8 | 'M'<<16 | 'G'<<24

// Version of the protocol; see the version rule in the package's documentation.
const Version uint16 = 2

// Type says what a frame is.
type Type uint16

// The types of frames.
const (
	TypeInvalid Type = iota
	TypeHello
	TypeDescription
	TypeAccept
	TypeRefuse
	TypePages
	TypeRoundEnd
	TypeRoundAck
	TypeState
	TypeReady
	TypeCommit
	TypeRunning
	TypeDone
	TypeAbort
	TypeResolve
	TypeVerdict
	TypePagesZstd
	TypeAbsent
	TypeRequest
	TypeComplete
	TypeMemory
	TypeRequestLine
	TypeLine
	TypeCheckpoint
	TypeCheckpointEnd
	TypeCheckpointAck
	TypeEnded
	// TypeCount is how many there are, the invalid one included.
	TypeCount
)

// Caps of payloads, in bytes. Pages has room for one full batch.
const (
	maxControlBytes     = 16 << 10
	maxDescriptionBytes = 16 << 20
	// MaxStateBytes bounds a saved state: some 20 KiB a vCPU, a few KiB a device, and up to 6 MiB of what the FPGA's
	// contexts found. It is vmm.MaxSavedBytes.
	MaxStateBytes = 16 << 20
	// MaxBatchBytes bounds the records of one PAGES or PAGES_ZSTD frame.
	MaxBatchBytes = 1 << 20
	// maxAbsentBytes holds the worst set of pages, every other one, of a guest of 256 GiB.
	maxAbsentBytes = 64 << 20
)

var kinds = [TypeCount]struct {
	name string
	cap  uint32
}{
	TypeHello:       {"HELLO", maxControlBytes},
	TypeDescription: {"DESCRIPTION", maxDescriptionBytes},
	TypeAccept:      {"ACCEPT", 0},
	TypeRefuse:      {"REFUSE", maxControlBytes},
	TypePages:       {"PAGES", MaxBatchBytes},
	TypeRoundEnd:    {"ROUND_END", maxControlBytes},
	TypeRoundAck:    {"ROUND_ACK", 0},
	TypeState:       {"STATE", MaxStateBytes},
	TypeReady:       {"READY", 0},
	TypeCommit:      {"COMMIT", 0},
	TypeRunning:     {"RUNNING", maxControlBytes},
	TypeDone:        {"DONE", 0},
	TypeAbort:       {"ABORT", maxControlBytes},
	TypeResolve:     {"RESOLVE", 0},
	TypeVerdict:     {"VERDICT", maxControlBytes},
	TypePagesZstd:   {"PAGES_ZSTD", MaxBatchBytes},
	TypeAbsent:      {"ABSENT", maxAbsentBytes},
	TypeRequest:     {"REQUEST", MaxRequestPages * requestPageBytes},
	TypeComplete:    {"COMPLETE", maxControlBytes},
	TypeMemory:      {"MEMORY", 0},
	TypeRequestLine: {"REQUEST_LINE", lineNumberBytes},
	TypeLine:        {"LINE", linePayloadBytes},

	TypeCheckpoint:    {"CHECKPOINT", maxControlBytes},
	TypeCheckpointEnd: {"CHECKPOINT_END", maxControlBytes},
	TypeCheckpointAck: {"CHECKPOINT_ACK", maxControlBytes},
	TypeEnded:         {"ENDED", 0},
}

func (t Type) valid() bool { return t > TypeInvalid && t < TypeCount }

func (t Type) String() string {
	if !t.valid() {
		return fmt.Sprintf("frame type %d", uint16(t))
	}
	return kinds[t].name
}

// Set is a set of frame types: what a state takes.
type Set uint32

// Of makes a set.
func Of(types ...Type) Set {
	var s Set
	for _, t := range types {
		s |= 1 << t
	}
	return s
}

func (s Set) has(t Type) bool { return t.valid() && s&(1<<t) != 0 }

func (s Set) String() string {
	out := ""
	for t := TypeInvalid + 1; t < TypeCount; t++ {
		if !s.has(t) {
			continue
		}
		if out != "" {
			out += " or "
		}
		out += t.String()
	}
	return out
}

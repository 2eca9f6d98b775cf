package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"unicode/utf8"

	"github.com/fineline-vmm/fineline/migration/identity"
)

// Purpose says what a connection is for.
type Purpose uint8

// The purposes.
const (
	PurposeInvalid Purpose = iota
	PurposeMigrate         // a hand-over begins
	PurposeResolve         // the fate of a hand-over is asked for
	PurposeStream          // one more connection of a hand-over that was accepted
	PurposeRecover         // a post-copy whose connections were lost goes on
	PurposeReverse         // checkpoints of the guest come back to its source
)

// Mode says when the guest's memory moves.
type Mode string

// The modes.
const (
	ModePrecopy  Mode = "precopy"  // before the guest
	ModePostcopy Mode = "postcopy" // after it
	ModeHybrid   Mode = "hybrid"   // before it, and after it what changed meanwhile
	ModeLocal    Mode = "local"    // it does not: the destination gets the files that it is in
)

// Valid reports whether there is such a mode.
func (m Mode) Valid() bool {
	return m == ModePrecopy || m == ModePostcopy || m == ModeHybrid || m == ModeLocal
}

// AfterCommit reports whether memory is still to come when the guest runs at the destination.
func (m Mode) AfterCommit() bool { return m == ModePostcopy || m == ModeHybrid }

// Limits of a HELLO; of its strings in bytes.
const (
	MaxMachineIDBytes = 128
	maxPathBytes      = 4096
	maxBuildBytes     = 256
	// MaxStreams bounds the connections of one hand-over, besides the main one.
	MaxStreams = 128
	// MaxCheckpointMS bounds the time between two checkpoints.
	MaxCheckpointMS = 3600_000
	// MaxGeneration bounds what a peer can have the next one be counted from. No machine moves so often.
	MaxGeneration = 1<<62 - 1
)

// Hello is the first message of each side. The destination repeats all but who it is.
type Hello struct {
	Purpose    Purpose          `json:"purpose"`
	Build      string           `json:"build"`
	MachineID  string           `json:"machine_id"`
	Generation uint64           `json:"generation"` // of this hand-over, from 1
	Process    identity.Process `json:"process"`
	Journal    string           `json:"journal"` // absolute path, in the sender's file system

	// With PurposeMigrate: what the source is going to do.
	Mode    Mode `json:"mode,omitempty"`
	Streams int  `json:"streams,omitempty"` // that it opens once it is accepted
	// CheckpointMS is how often the source wants a checkpoint of the guest once that has moved; 0: never.
	CheckpointMS int `json:"checkpoint_ms,omitempty"`
	// With PurposeStream: which of them this is, from 1. With a mode that moves memory after the guest, the last one is
	// for what the guest waits for.
	Stream int `json:"stream,omitempty"`
}

// Check reports what no correct peer sends.
func (h *Hello) Check() error {
	switch {
	case h.Purpose == PurposeInvalid || h.Purpose > PurposeReverse:
		return protocolErrorf("HELLO has purpose %d", h.Purpose)
	case h.Streams < 0 || h.Streams > MaxStreams || h.Stream < 0 || h.Stream > MaxStreams:
		return protocolErrorf("HELLO is of stream %d of %d; there are at most %d", h.Stream, h.Streams, MaxStreams)
	case h.CheckpointMS < 0 || h.CheckpointMS > MaxCheckpointMS:
		return protocolErrorf("HELLO wants a checkpoint every %d ms; choose up to %d", h.CheckpointMS, MaxCheckpointMS)
	case h.MachineID == "" || len(h.MachineID) > MaxMachineIDBytes || !utf8.ValidString(h.MachineID):
		return protocolErrorf("HELLO has a machine id of %d bytes; it has 1 to %d", len(h.MachineID), MaxMachineIDBytes)
	case h.Generation == 0 || h.Generation > MaxGeneration:
		return protocolErrorf("HELLO has generation %d; there are 1 to %d", h.Generation, uint64(MaxGeneration))
	case len(h.Journal) > maxPathBytes || len(h.Build) > maxBuildBytes:
		return protocolErrorf("HELLO has a journal path of %d and a build of %d bytes", len(h.Journal), len(h.Build))
	}
	if h.Purpose != PurposeMigrate {
		return nil
	}
	switch h.Mode {
	case ModePrecopy:
		return nil
	case ModeLocal:
		if h.Streams != 0 {
			return protocolErrorf("HELLO has %d streams for %s; it has no page for them", h.Streams, h.Mode)
		}
		return nil
	case ModePostcopy, ModeHybrid:
		if h.Streams < 2 {
			return protocolErrorf("HELLO has %d streams for %s; it takes 2", h.Streams, h.Mode)
		}
		return nil
	}
	return protocolErrorf("HELLO has mode %q", h.Mode)
}

// Reason is the payload of REFUSE and ABORT.
type Reason struct {
	Text string `json:"text"`
	// Cancelled: a person asked for it; nothing went wrong.
	Cancelled bool `json:"cancelled,omitempty"`
}

// maxReasonBytes keeps a long error of ours below the frame's cap, escapes included.
const maxReasonBytes = 2048

// NewReason makes a reason that fits into its frame.
func NewReason(text string, cancelled bool) Reason {
	if len(text) > maxReasonBytes {
		text = text[:maxReasonBytes] + " ..."
	}
	return Reason{Text: text, Cancelled: cancelled}
}

// RoundEnd closes a round and repeats what was in it.
type RoundEnd struct {
	Round     int    `json:"round"`      // from 1
	Pages     uint64 `json:"pages"`      // with content
	ZeroPages uint64 `json:"zero_pages"` // sent as runs
	// Paused: the guest does not run. There is no ROUND_ACK, and STATE or another such round follows.
	Paused bool `json:"paused"`
}

// Running reports the first guest instruction at the destination.
type Running struct {
	MonotonicNS int64 `json:"monotonic_ns"` // CLOCK_MONOTONIC of the destination just after it let the vCPUs go
	// Failure: the destination owns the guest, could not start it and keeps it paused.
	Failure string `json:"failure,omitempty"`
}

// Complete says that the destination lacks no memory any more, and what that took.
type Complete struct {
	// Ended: the guest has ended and needs no more memory.
	Ended  bool   `json:"ended,omitempty"`
	Faults Faults `json:"faults"`
}

// Faults is what post-copy was like for the guest.
type Faults struct {
	Count        uint64  `json:"count"`   // pages that somebody waited for and that were asked for
	Stocked      uint64  `json:"stocked"` // pages that somebody waited for and that had come, though they were not in place
	P50US        float64 `json:"p50_us"`  // of both, from the miss to the page in place
	P99US        float64 `json:"p99_us"`
	MaxUS        float64 `json:"max_us"`
	AskedP50US   float64 `json:"asked_p50_us"` // of those that were asked for
	AskedP99US   float64 `json:"asked_p99_us"`
	PrefetchHits uint64  `json:"prefetch_hits"` // misses of pages that a predictor had asked for before
	Prefetched   uint64  `json:"prefetched"`    // pages that a predictor asked for
	Background   uint64  `json:"background"`    // pages that came unasked
	Late         uint64  `json:"late"`          // pages that came twice

	// How good the prediction was, as far as that can be seen: the use of a page that is there is not, a miss is.
	PredictedStored uint64 `json:"predicted_stored"` // of Prefetched, the pages that were stored before anybody waited for them
	PredictedRight  uint64 `json:"predicted_right"`  // misses of pages that the predictor had named beforehand
	PredictedWrong  uint64 `json:"predicted_wrong"`  // misses of pages that it had not: it was asked, and named others or none

	// What follows is of a destination that has missed lines come before their pages; else it is zero. All above is then of
	// whoever waits for pages.
	Lines     uint64  `json:"lines,omitempty"`       // lines that a guest CPU waited for and that were asked for
	LinesLate uint64  `json:"lines_late,omitempty"`  // of them, those that came after their page
	LineBytes uint64  `json:"line_bytes,omitempty"`  // of the answers, headers included
	PagesRest uint64  `json:"pages_rest,omitempty"`  // pages that came after one of their lines was missed
	LineP50US float64 `json:"line_p50_us,omitempty"` // from the miss to the line in place
	LineP99US float64 `json:"line_p99_us,omitempty"`
	LineMaxUS float64 `json:"line_max_us,omitempty"`
	RestP50US float64 `json:"rest_p50_us,omitempty"` // from the first miss of a page to all of it in place
	RestP99US float64 `json:"rest_p99_us,omitempty"`
	RestMaxUS float64 `json:"rest_max_us,omitempty"`

	// Buckets are how many took how long, ascending and without empty ones.
	Buckets []FaultBucket `json:"buckets,omitempty"`
}

// FaultBucket counts the page requests that took at most UpToUS, and more than the bucket before.
type FaultBucket struct {
	UpToUS float64 `json:"up_to_us"`
	Count  uint64  `json:"count"`
}

// MaxFaultBuckets bounds Faults.Buckets: quarters of powers of two from a microsecond to ten minutes are fewer.
const MaxFaultBuckets = 128

// Check reports what no correct peer sends.
func (c *Complete) Check() error {
	if n := len(c.Faults.Buckets); n > MaxFaultBuckets {
		return protocolErrorf("COMPLETE has %d buckets of latencies; there are at most %d", n, MaxFaultBuckets)
	}
	last := 0.0
	for _, b := range c.Faults.Buckets {
		if !(b.UpToUS > last) || b.Count == 0 {
			return protocolErrorf("COMPLETE has %d latencies of up to %v µs behind %v µs", b.Count, b.UpToUS, last)
		}
		last = b.UpToUS
	}
	return nil
}

// Fate is what became of a hand-over.
type Fate uint8

// The fates.
const (
	FateInvalid   Fate = iota
	FateOwner          // the destination owns the guest: the source must never run it again
	FateReady          // the destination holds the whole guest and waits for COMMIT or ABORT
	FateDiscarded      // the destination has thrown it away and will never run it
	FateUnknown        // this process has never heard of it
)

func (f Fate) String() string {
	switch f {
	case FateOwner:
		return "owner"
	case FateReady:
		return "ready"
	case FateDiscarded:
		return "discarded"
	case FateUnknown:
		return "unknown"
	}
	return fmt.Sprintf("fate %d", uint8(f))
}

// Verdict answers RESOLVE.
type Verdict struct {
	Fate    Fate     `json:"fate"`
	Running *Running `json:"running,omitempty"` // with FateOwner: what a lost RUNNING said
}

// Check reports what no correct peer sends.
func (v *Verdict) Check() error {
	if v.Fate == FateInvalid || v.Fate > FateUnknown {
		return protocolErrorf("VERDICT has fate %d", v.Fate)
	}
	if v.Fate == FateOwner && v.Running == nil {
		return protocolErrorf("VERDICT has an owner that does not say when it ran")
	}
	return nil
}

// Decode reads the message of a frame. A field that this version does not have is an error: versions
// are equal, so it can only be a bug.
func Decode[M any](f Frame) (*M, error) {
	var msg M
	dec := json.NewDecoder(bytes.NewReader(f.Payload))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&msg); err != nil {
		return nil, protocolErrorf("%s: %w", f.Type, err)
	}
	if dec.More() {
		return nil, protocolErrorf("%s has bytes after its message", f.Type)
	}
	if c, ok := any(&msg).(interface{ Check() error }); ok {
		if err := c.Check(); err != nil {
			return nil, err
		}
	}
	return &msg, nil
}

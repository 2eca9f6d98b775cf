package migration

import (
	"time"

	"github.com/fineline-vmm/fineline/migration/wire"
)

// Status is the outcome of a migration for the source.
type Status string

// The outcomes.
const (
	StatusCompleted Status = "completed"               // the guest belongs to the destination
	StatusCancelled Status = "cancelled"               // on request; the guest runs at the source
	StatusFailed    Status = "failed"                  // see Error; the guest runs at the source unless Error says otherwise
	StatusInDoubt   Status = "in-doubt"                // the guest is paused; see InDoubtError
	StatusResumed   Status = "resumed-from-checkpoint" // it moved, the destination died, and it runs at the source; see ResumedError
	// StatusUnknown is no source's, but of who asked it and did not hear how it ended: the guest may be anywhere.
	StatusUnknown Status = "unknown"
)

// Round is one pass over the pages to send. The last one of a completed migration is with the guest
// paused.
type Round struct {
	Pages          uint64  `json:"pages"`           // sent with content
	CleanPages     uint64  `json:"clean_pages"`     // marked dirty, and yet as the destination had them
	ZeroPages      uint64  `json:"zero_pages"`      // found zero
	Lines          uint64  `json:"lines"`           // sent, of 64 bytes
	Bytes          uint64  `json:"bytes"`           // on the wire
	MS             float64 `json:"ms"`              // to the acknowledgement, or to the last byte when paused
	RemainingPages uint64  `json:"remaining_pages"` // written by the guest meanwhile
	// What the guest wrote while the round lasted: RemainingPages a second and, of those, the lines which the next
	// round sent, since it is that one which looks for them. So there are no lines for the last round, by granularity page there
	// are none, and a page that was sent without a baseline counts for all of its 64.
	DirtyPagesPerS float64 `json:"dirty_pages_per_s"`
	DirtyLinesPerS float64 `json:"dirty_lines_per_s,omitempty"`
	Paused         bool    `json:"paused,omitempty"`

	took time.Duration
}

// Faults is the post-copy part of a result; all zero for pre-copy.
type Faults = wire.Faults

// How a downtime was measured.
const (
	MeasuredByClock    = "clock"       // both ends on one CLOCK_MONOTONIC
	MeasuredUpperBound = "upper bound" // to the arrival of the destination's report
)

// PhaseTime is one named phase of the timeline.
type PhaseTime struct {
	Phase string  `json:"phase"`
	MS    float64 `json:"ms"`
}

// Result is what the source reports, also of a migration that failed. Its JSON is what users script
// against (design section 5): fields are added, never changed.
type Result struct {
	Status      Status `json:"status"`
	Mode        string `json:"mode"`
	Granularity string `json:"granularity"`
	MachineID   string `json:"machine_id"`
	Generation  uint64 `json:"generation"`

	TotalMS          float64     `json:"total_ms"`          // to the first instruction there, or the last of its memory
	DowntimeMS       float64     `json:"downtime_ms"`       // 0 unless completed
	DowntimeMeasured string      `json:"downtime_measured"` // "clock", "upper bound", or "" if there was none
	Phases           []PhaseTime `json:"phases"`

	Rounds              []Round `json:"rounds"`
	BytesSent           uint64  `json:"bytes_sent"` // everything, headers and state too
	BytesInDowntime     uint64  `json:"bytes_in_downtime"`
	PagesSent           uint64  `json:"pages_sent"`
	ZeroPages           uint64  `json:"zero_pages"`
	LinesSent           uint64  `json:"lines_sent"`
	BandwidthBytesPerS  float64 `json:"bandwidth_bytes_per_s"`
	Converged           bool    `json:"converged"` // the rest was expected to fit into the allowed downtime
	EstimatedDowntimeMS float64 `json:"estimated_downtime_ms"`
	// ThrottlePercent is how much of its time the guest was held back to converge.
	ThrottlePercent int    `json:"throttle_percent"`
	BaselineBytes   uint64 `json:"baseline_bytes"` // the most memory that baselines took at the source
	// SourceCPUMS is the processor time that the source's process took from the start to the end, without its vCPUs' threads;
	// absent if that is not known. What the process does beside the migration is in it.
	SourceCPUMS float64 `json:"source_cpu_ms,omitempty"`
	// SwitchedToPostcopy: memory went on moving after the guest.
	SwitchedToPostcopy bool   `json:"switched_to_postcopy"`
	RecoveredTimes     int    `json:"recovered_times"` // connections lost in post-copy and replaced
	Faults             Faults `json:"faults"`
	// EndedThere: the guest was ended at the destination before all its memory had come there.
	EndedThere bool `json:"ended_there,omitempty"`
	// KeepSource: the source holds checkpoints of the guest, of which it had so many when this was said.
	KeepSource  bool   `json:"keep_source,omitempty"`
	Checkpoints uint64 `json:"checkpoints,omitempty"`

	Error string `json:"error,omitempty"`
}

// Received is what the destination reports when the guest runs there.
type Received struct {
	MachineID  string  `json:"machine_id"`
	Generation uint64  `json:"generation"`
	Rounds     int     `json:"rounds"`
	Pages      uint64  `json:"pages"`
	ZeroPages  uint64  `json:"zero_pages"`
	Lines      uint64  `json:"lines"`
	TotalMS    float64 `json:"total_ms"`
	// TookOver: the source was proved dead before it could commit (rule 3 of the ownership law).
	TookOver bool `json:"took_over,omitempty"`
	// Postcopy: memory is still to come, see ListenOptions.Complete.
	Postcopy bool `json:"postcopy,omitempty"`
}

// lastRemaining is what the newest round has left.
func (r *Result) lastRemaining() uint64 {
	if len(r.Rounds) == 0 {
		return 0
	}
	return r.Rounds[len(r.Rounds)-1].RemainingPages
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

package wire

// Checkpoint opens a checkpoint, and acknowledges one as CHECKPOINT_ACK: the newest that the source holds,
// 0 being the guest as it was at the switch.
type Checkpoint struct {
	Number uint64 `json:"number"`
}

// CheckpointEnd closes a checkpoint: only with it does what came before count. Pages and ZeroPages repeat
// what was in it.
type CheckpointEnd struct {
	Number    uint64 `json:"number"`
	Pages     uint64 `json:"pages"`      // with content
	ZeroPages uint64 `json:"zero_pages"` // sent as runs
	Lines     uint64 `json:"lines"`
	PauseUS   uint64 `json:"pause_us"` // how long the guest stood still for it
	// Missed: since the checkpoint before, how often there was none to take since a vCPU waited for memory.
	Missed uint64 `json:"missed,omitempty"`
	// PeriodMS: no other checkpoint begins within so long of the beginning of this one. It is the interval that the source has asked for,
	// or longer, up to MaxCheckpointMS, if checkpoints would cost the guest too much of its time.
	PeriodMS uint64 `json:"period_ms"`
}

// Check bounds what the source waits for.
func (c *CheckpointEnd) Check() error {
	if c.PeriodMS > MaxCheckpointMS {
		return protocolErrorf("CHECKPOINT_END puts the next checkpoint off for %d ms; up to %d are possible", c.PeriodMS, MaxCheckpointMS)
	}
	return nil
}

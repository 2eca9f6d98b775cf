package track

// Metrics are the counters of an Engine. Comparable.
type Metrics struct {
	Contexts int `json:"contexts"`
	// BaselineBytes is the memory that baselines may use now; pages that were never written use
	// none of it.
	BaselineBytes uint64 `json:"baseline_bytes"`
}

// Metrics waits for a harvest that is under way.
func (e *Engine) Metrics() Metrics {
	e.mu.Lock()
	defer e.mu.Unlock()
	return Metrics{Contexts: len(e.contexts), BaselineBytes: e.base.usedBytes}
}

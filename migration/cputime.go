package migration

import "time"

// cpuMeter measures what a hand-over takes of the processors at the source.
type cpuMeter struct {
	source CPUMeter // nil: that is not known
	began  time.Duration
}

func newCPUMeter(src Source) (m cpuMeter) {
	source, ok := src.(CPUMeter)
	if !ok {
		return m
	}
	if began, err := source.CPUTime(); err == nil {
		m = cpuMeter{source, began}
	}
	return m
}

// took is what was taken since newCPUMeter, or 0 if that is not known.
func (m cpuMeter) took() time.Duration {
	if m.source == nil {
		return 0
	}
	now, err := m.source.CPUTime()
	if err != nil {
		return 0
	}
	return max(0, now-m.began)
}

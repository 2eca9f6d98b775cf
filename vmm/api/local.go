package api

import (
	"errors"
	"fmt"
	"strings"
)

// checkLocal judges what a local hand-over cannot have.
func (r MigrationRequest) checkLocal() error {
	switch {
	case !r.Local:
		return nil
	case !strings.HasPrefix(r.DestinationURL, "unix:"):
		return errors.New("local hands the memory's files over, between two processes of one host: give a unix: address")
	}
	for _, f := range []struct {
		name  string
		given bool
	}{
		{"memory_mode", r.MemoryMode != "" && r.MemoryMode != "Precopy"},
		{"granularity", r.Granularity != ""},
		{"baseline", r.Baseline != ""},
		{"baseline_budget_bytes", r.BaselineBudgetBytes != 0},
		{"compression", r.Compression != ""},
		{"connections", r.Connections != 0},
		{"max_bandwidth_bytes_per_second", r.MaxBandwidthBytesPerSecond != 0},
		{"keep_source", r.KeepSource},
	} {
		if f.given {
			return fmt.Errorf("local copies no memory: leave %s out", f.name)
		}
	}
	return nil
}

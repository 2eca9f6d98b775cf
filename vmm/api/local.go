package api

import (
	"errors"
	"strings"
)

// checkLocal judges what a local hand-over cannot have.
func (r MigrationRequest) checkLocal() error {
	switch {
	case !r.Local:
		return nil
	case !strings.HasPrefix(r.DestinationURL, "unix:"):
		return errors.New("local hands the memory's files over, between two processes of one host: give a unix: address")
	case r.MemoryMode != "" && r.MemoryMode != "Precopy":
		return errors.New("local copies no memory: leave memory_mode out")
	}
	return nil
}

package main

import (
	"strings"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration"
	"github.com/fineline-vmm/fineline/migration/wire"
	"github.com/fineline-vmm/fineline/vmm"
	"github.com/fineline-vmm/fineline/vmm/api"
)

var _ migration.LocalTarget = (*targetMachine)(nil)

// PrepareLocal builds the machine on the source's own memory.
func (t *targetMachine) PrepareLocal(description []byte, files []int) (_ *memory.Guest, err error) {
	if t.m, err = vmm.NewOnMemory(description, t.local(), files); err != nil {
		return nil, err
	}
	return t.m.Memory(), nil
}

// requestedMode is what a request says.
func requestedMode(r api.MigrationRequest) wire.Mode {
	if r.Local {
		return wire.ModeLocal
	}
	return wire.Mode(strings.ToLower(r.MemoryMode))
}

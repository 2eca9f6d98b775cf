package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/fineline-vmm/fineline/migration/journal"
)

// newMachineID returns an id that no other machine has.
func newMachineID() string { return rand.Text() }

// openJournal opens this process's journal of migration phases on first use.
func (i *instance) openJournal() (*journal.Journal, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.journal != nil {
		return i.journal, nil
	}
	path := i.journalPath
	if path == "" {
		dir, err := stateDir()
		if err != nil {
			return nil, err
		}
		path = filepath.Join(dir, fmt.Sprintf("migration-%d.journal", os.Getpid()))
	}
	j, err := journal.Open(path)
	if err != nil {
		return nil, fmt.Errorf("migration journal: %w (choose another with --journal)", err)
	}
	i.journal = j
	return j, nil
}

// closeJournal also removes a journal that the user did not ask for. What it says
// is of use only to the peer of a process that was killed.
func (i *instance) closeJournal() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.journal == nil {
		return nil
	}
	err := i.journal.Close()
	if i.journalPath == "" {
		err = errors.Join(err, os.Remove(i.journal.Path()))
	}
	return err
}

// stateDir is where journals go that the user named no place for. It must outlive
// this process, so that the peer can read the journal of one that was killed.
func stateDir() (string, error) {
	dir := os.Getenv("XDG_RUNTIME_DIR")
	if dir == "" {
		dir = filepath.Join(os.TempDir(), fmt.Sprintf("fineline-%d", os.Getuid()))
	} else {
		dir = filepath.Join(dir, "fineline")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("folder of the migration journal: %w", err)
	}
	return dir, nil
}

package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/sirupsen/logrus"

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
	var j *journal.Journal
	var err error
	if i.journalPath != "" {
		j, err = journal.Open(i.journalPath)
	} else {
		var dir string
		if dir, err = stateDir(); err == nil {
			j, err = journal.Create(dir)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("migration journal: %w (choose another with --journal)", err)
	}
	i.journal = j
	return j, nil
}

// closeJournal also removes a journal that the user did not ask for, unless the peer
// of a migration may not know yet how it ended: then it reads it here.
func (i *instance) closeJournal() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.journal == nil {
		return nil
	}
	var err error
	switch {
	case i.journalPath != "":
	case i.journal.Needed():
		logrus.WithField("journal", i.journal.Path()).Warn("the other side of the migration may not know how it ended: the journal stays for it")
	default:
		err = i.journal.Remove()
	}
	return errors.Join(err, i.journal.Close())
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
	// Anybody may have made it first in a folder for temporary files, to choose who owns a guest.
	info, err := os.Lstat(dir)
	if err != nil {
		return "", fmt.Errorf("folder of the migration journal: %w", err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || info.Mode().Perm() != 0o700 || int(stat.Uid) != os.Getuid() {
		return "", fmt.Errorf("folder of the migration journal: %s is %v; it must be a folder of yours with mode 0700", dir, info.Mode())
	}
	return dir, nil
}

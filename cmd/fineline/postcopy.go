package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/cmd/internal/view"
	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration"
	"github.com/fineline-vmm/fineline/vmm"
	"github.com/fineline-vmm/fineline/vmm/api"
)

// MemoryUnderWay is what a post-copy has still to bring here, or to fetch from here, in bytes.
func (i *instance) MemoryUnderWay() uint64 {
	i.mu.Lock()
	m, o := i.machine, i.out
	i.mu.Unlock()
	if o != nil {
		if p := o.latest.Load(); p != nil && p.AbsentPages != 0 && o.result.Load() == nil {
			return p.AbsentPages * memory.PageSize
		}
	}
	if m == nil {
		return 0
	}
	return m.Memory().Absent() * memory.PageSize
}

// migrationStatus is what GET /fineline/v1/migration answers.
type migrationStatus struct {
	// Outgoing is the machine's newest migration from here: the latest picture, and the result once there is one.
	Outgoing *migration.Progress `json:"outgoing,omitempty"`
	Result   *migration.Result   `json:"result,omitempty"`
	// Coming: a machine is on its way here.
	Coming bool `json:"coming,omitempty"`
	// Incoming is how the machine came here.
	Incoming *arriving `json:"incoming,omitempty"`
}

// Migration is how the machine's migrations are, in and out.
func (i *instance) Migration() any {
	i.mu.Lock()
	in, o := i.in, i.out
	i.mu.Unlock()
	var s migrationStatus
	if o != nil {
		s.Outgoing, s.Result = o.latest.Load(), o.result.Load()
	}
	if in != nil {
		if a, ok := in.arrival.picture(); ok {
			s.Incoming = &a
		} else {
			s.Coming = in.arrival.coming.Load() && i.session.Lifecycle().Phase == api.Incoming
		}
	}
	if s == (migrationStatus{}) {
		return nil
	}
	return s
}

// RecoverMigration connects the post-copy under way anew.
func (i *instance) RecoverMigration(ctx context.Context, r api.RecoverRequest) error {
	recovery := migration.Recovery{}
	if r.DestinationURL != "" {
		var err error
		if recovery.To, err = migration.ParseAddress(r.DestinationURL); err != nil {
			return err
		}
	}
	i.mu.Lock()
	o := i.out
	i.mu.Unlock()
	if p := o.latest.Load(); p.Phase != migration.PhaseReconnecting {
		return fmt.Errorf("nothing is to be recovered: the connection stands, and the memory moves: %s", unsentText(p))
	}
	done := make(chan error, 1)
	recovery.Done = done
	select {
	case o.recovers <- recovery:
	case <-o.over:
		return errors.New("the migration has just ended")
	case <-ctx.Done():
		return errors.New("an attempt to connect is under way and has not ended")
	}
	if err := <-done; err != nil {
		return fmt.Errorf("the guest still waits for its memory: %w", err)
	}
	return nil
}

// awaitServed waits for the end of a migration at the end of this process. A guest that has left needs the memory that is
// here: it is served on, until a second signal says that the process is to end at once.
func (i *instance) awaitServed(o *outgoing) error {
	select {
	case <-o.left: // also out of a doubt, with which it has ended already
	default:
		select {
		case <-o.ended:
			return nil
		case <-o.left:
		}
	}
	again := make(chan os.Signal, 1)
	signal.Notify(again, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer signal.Stop(again)
	select {
	case <-o.over:
		return nil
	case <-i.current().Done():
		if i.current().Outcome().Kind == vmm.EndedByMigration { // it is served no more: this is why the process ends, and nobody asked it to
			return nil
		}
	default:
	}
	logrus.Warnf("the guest runs at the destination and fetches its memory from here (%s): this process ends when all has gone; "+
		"a second signal ends it at once, and the guest is lost then", unsentText(o.latest.Load()))
	select {
	case <-o.over:
		return nil
	case <-again:
	}
	least := ""
	if left := i.MemoryUnderWay(); left != 0 {
		least = fmt.Sprintf(", at least %s of it", view.Bytes(float64(left)))
	}
	close(o.giveUp)
	<-o.over
	return fmt.Errorf("ended before all of the guest's memory was at the destination%s: the guest there is lost with it", least)
}

// unsentText is what is known here of memory that the destination lacks. What a connection holds counts as sent.
func unsentText(p *migration.Progress) string {
	switch {
	case p.AbsentPages != 0:
		return pagesInBytes(p.AbsentPages) + " are not sent yet"
	case p.Phase == migration.PhaseReconnecting:
		return "it is not known what has arrived"
	}
	return "all is sent, the destination stores the last"
}

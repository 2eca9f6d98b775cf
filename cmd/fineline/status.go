package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/fineline-vmm/fineline/cmd/internal/view"
	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration"
	"github.com/fineline-vmm/fineline/vmm/api"
)

func newStatusCommand() *cobra.Command {
	var asJSON bool
	c := clientCommand("status", "Say how a machine is, and how far its migration", func(c *cobra.Command, client *api.Client) error {
		s, err := askStatus(c, client)
		if err != nil {
			return err
		}
		if asJSON {
			return json.NewEncoder(c.OutOrStdout()).Encode(s)
		}
		return s.print(c.OutOrStdout())
	})
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return c
}

// machineStatus is what `fineline status --json` prints.
type machineStatus struct {
	api.InstanceInfo
	api.VMConfig
	Metrics   json.RawMessage `json:"metrics,omitempty"`
	Migration json.RawMessage `json:"migration,omitempty"` // a migrationStatus
}

func askStatus(c *cobra.Command, client *api.Client) (s machineStatus, err error) {
	if s.InstanceInfo, err = client.Info(c.Context()); err != nil {
		return s, err
	}
	if s.VMConfig, err = client.VMConfig(c.Context()); err != nil {
		return s, err
	}
	if s.Metrics, err = unlessFault(client.Metrics(c.Context())); err != nil { // a fault: no machine yet
		return s, err
	}
	s.Migration, err = unlessFault(client.Migration(c.Context())) // a fault: there was none
	return s, err
}

func unlessFault(answer json.RawMessage, err error) (json.RawMessage, error) {
	if fault := (*api.Fault)(nil); errors.As(err, &fault) {
		return nil, nil
	}
	return answer, err
}

func (s *machineStatus) print(out io.Writer) error {
	var m migrationStatus
	if s.Migration != nil {
		if err := json.Unmarshal(s.Migration, &m); err != nil {
			return fmt.Errorf("status of the migration: %w", err)
		}
	}
	phase := s.Phase
	if in := m.Incoming; in != nil && in.Stalled != "" && phase == api.Running.String() {
		phase += ", but paused until its memory comes"
	}
	fmt.Fprintf(out, "%s: %s, %s\n", s.ID, phase, shapeText(s.MachineConfig))
	if st := s.Standby; st != nil {
		fmt.Fprintln(out, standbyLine(st))
	}
	if b := s.BootSource; b != nil {
		fmt.Fprintf(out, "booted from %s\n", b.KernelImagePath)
	}
	return view.Table(out, m.rows())
}

// shapeText is what a machine has. A destination that waits knows of it what its flags say.
func shapeText(c api.MachineConfig) string {
	var known []string
	if c.VCPUCount != 0 {
		known = append(known, fmt.Sprintf("%d vCPUs", c.VCPUCount))
	}
	if c.MemSizeMiB != 0 {
		known = append(known, fmt.Sprintf("%d MiB of memory", c.MemSizeMiB))
	}
	switch len(known) {
	case 0:
		return "its shape comes from the source"
	case 1:
		return known[0] + ", the rest comes from the source"
	}
	return known[0] + ", " + known[1]
}

// rows are what people want to know of it.
func (m *migrationStatus) rows() (rows []view.Row) {
	add := func(name, format string, args ...any) {
		rows = append(rows, view.Row{Name: name, Value: fmt.Sprintf(format, args...)})
	}
	if m.Coming {
		add("migration", "a machine is arriving")
	}
	if in := m.Incoming; in != nil {
		switch {
		case in.Error != "":
			add("memory lost", "%s", in.Error)
		case in.Stalled != "":
			add("guest paused", "its memory does not come: %s", in.Stalled)
		}
		if in.AbsentPages != 0 {
			add("memory to come", "%s", pagesInBytes(in.AbsentPages))
		}
	}
	switch {
	case m.Result != nil:
		add("last migration", "%s%s", m.Result.Status, suffix(m.Result.Error))
		if m.Result.EndedThere {
			add("guest", "%s", view.EndedThere)
		}
	case m.Outgoing != nil:
		outgoingRows(m.Outgoing, add)
	}
	return rows
}

func outgoingRows(p *migration.Progress, add func(name, format string, args ...any)) {
	add("migration", "%s, %s", p.Mode, view.Label(p))
	if p.Phase == migration.PhaseSettling {
		add("guest", "stands still: the connection is lost, and the destination is asked whether it has the guest")
	}
	copies := p.Phase == migration.PhasePrecopy // else the guest is paused here, or runs elsewhere
	switch {
	case p.Round == 0:
	case copies:
		add("rounds", "%d, %d pages of this one left", p.Round, p.RemainingPages)
	default:
		add("rounds", "%d", p.Round)
	}
	switch {
	case !copies:
	case p.DirtyLinesPerS != 0:
		add("guest writes", "%.0f pages/s, %.0f lines/s", p.DirtyPagesPerS, p.DirtyLinesPerS)
	case p.DirtyPagesPerS != 0: // its lines are counted by the round under way
		add("guest writes", "%.0f pages/s", p.DirtyPagesPerS)
	}
	if copies && p.ThrottlePercent != 0 {
		add("slowed down", "by %d %% of its time", p.ThrottlePercent)
	}
	if p.AbsentPages != 0 { // with none unsent the destination may still lack what is on its way
		add("memory to go", "%s of %s", pagesInBytes(p.AbsentPages), pagesInBytes(p.PostcopyPages))
	}
	if p.Lost != "" {
		add("lost", "%s; repair the link, or give the way with fineline migrate --recover --to", p.Lost)
	}
	add("sent", "%s", view.Speed(p))
}

func pagesInBytes(n uint64) string { return view.Bytes(float64(n * memory.PageSize)) }

func suffix(err string) string {
	if err == "" {
		return ""
	}
	return ": " + err
}

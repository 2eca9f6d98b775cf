package main

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fineline-vmm/fineline/migration"
	"github.com/fineline-vmm/fineline/migration/wire"
	"github.com/fineline-vmm/fineline/vmm/api"
)

// modes are the values of --mode, and what the API calls them.
var modes = map[string]string{"precopy": "Precopy", "postcopy": "Postcopy", "hybrid": "Hybrid"}

// strategies are the values of --timeout-strategy, and what the API calls them.
var strategies = map[string]string{"cancel": "Cancel", "ignore": "Ignore"}

// maxStreams is what the protocol has, less the main connection.
const maxStreams = wire.MaxStreams - 1

// leastBandwidth is what --max-bandwidth may be: less moves no guest in a day, and is a unit that was forgotten.
const leastBandwidth sizeBytes = 64 << 10

// request turns the flags into what the API takes. What is wrong with them it says in their own words; changed tells which of
// them were given.
func (f *migrateFlags) request(changed func(string) bool) (r api.MigrationRequest, err error) {
	if f.to == "" {
		return r, errors.New("give --to, where the destination listens with --incoming: unix:PATH or tcp:HOST:PORT")
	}
	for _, check := range []func() error{
		f.checkChoices, f.checkNumbers,
		func() error { return f.checkTogether(changed) },
	} {
		if err := check(); err != nil {
			return r, err
		}
	}
	to, err := destination(f.to)
	if err != nil {
		return r, err
	}
	files, err := f.tls.files(to)
	if err != nil {
		return r, err
	}
	r = api.MigrationRequest{
		DestinationURL: to.String(), DowntimeMS: f.maxDowntime.Milliseconds(),
		TimeoutS: int64(f.timeout / time.Second), TimeoutStrategy: strategies[f.timeoutStrategy],
		TLSCert: files.Cert, TLSKey: files.Key, TLSCA: files.CA,
		Local: f.local, KeepSource: f.keepSource,
	}
	f.requestCopy(&r)
	return r, r.Validate()
}

// destination reads --to. A path is made absolute, since the VMM that looks for it may have another directory.
func destination(text string) (migration.Address, error) {
	to, err := migration.ParseAddress(text)
	if err != nil {
		return to, fmt.Errorf("--to: %w", err)
	}
	path, isUnix := strings.CutPrefix(text, "unix:")
	if !isUnix {
		return to, nil
	}
	if path, err = filepath.Abs(path); err == nil {
		to, err = migration.ParseAddress("unix:" + path) // which may be too long now
	}
	if err != nil {
		return to, fmt.Errorf("--to %s, made absolute for the VMM: %w", text, err)
	}
	return to, nil
}

// requestCopy adds how memory is copied, if it is.
func (f *migrateFlags) requestCopy(r *api.MigrationRequest) {
	if f.local {
		return
	}
	r.MemoryMode, r.Granularity, r.Compression = modes[f.mode], f.granularity, f.compression
	r.Baseline, r.BaselineBudgetBytes = f.baseline, int64(f.baselineBudget)
	r.MaxBandwidthBytesPerSecond, r.Connections = int64(f.maxBandwidth), f.streams
	if f.keepSource {
		r.CheckpointMS = f.checkpoint.Milliseconds()
	}
}

// checkChoices: the flags that take one of a few words.
func (f *migrateFlags) checkChoices() error {
	for _, c := range []struct{ flag, value, choose string }{
		{"mode", f.mode, "precopy, postcopy or hybrid"},
		{"timeout-strategy", f.timeoutStrategy, "cancel or ignore"},
		{"granularity", f.granularity, "line or page"},
		{"compress", f.compression, "auto, zstd or none"},
		{"baseline", f.baseline, "auto, twin, hash or none"},
	} {
		words := strings.Split(strings.ReplaceAll(c.choose, " or ", ", "), ", ")
		if !slices.Contains(words, c.value) {
			return fmt.Errorf("--%s %q: choose %s", c.flag, c.value, c.choose)
		}
	}
	return nil
}

// checkNumbers: what is too little, too much, or finer than what is passed on.
func (f *migrateFlags) checkNumbers() error {
	most, least := sizeBytes(api.MaxSizeBytes), leastBandwidth
	switch {
	case f.streams < 0 || f.streams > maxStreams:
		return fmt.Errorf("--streams %d: choose 1 to %d, or 0 for what suits this host", f.streams, maxStreams)
	case f.maxBandwidth != 0 && f.maxBandwidth < least:
		return fmt.Errorf("--max-bandwidth %s, in bytes a second: give at least %s, for example 100M, or 0 for no limit", &f.maxBandwidth, &least)
	case f.maxBandwidth > most:
		return fmt.Errorf("--max-bandwidth %s: give at most %s, or 0 for no limit", &f.maxBandwidth, &most)
	case f.baselineBudget > most:
		return fmt.Errorf("--baseline-budget %s: give at most %s", &f.baselineBudget, &most)
	}
	return cmp.Or(
		checkDuration("timeout", f.timeout, time.Second, api.MaxTimeoutS*time.Second),
		checkDowntime(f.maxDowntime),
		checkDuration("checkpoint-interval", f.checkpoint, time.Millisecond, api.MaxCheckpointMS*time.Millisecond),
	)
}

// checkDowntime is for --max-downtime, of any command.
func checkDowntime(d time.Duration) error {
	return checkDuration("max-downtime", d, time.Millisecond, api.MaxDowntimeMS*time.Millisecond)
}

// checkDuration judges a flag that is passed on in whole milliseconds or seconds.
func checkDuration(flag string, d, unit, most time.Duration) error {
	switch {
	case d < unit:
		return fmt.Errorf("--%s %v: give at least %v", flag, d, unit)
	case d > most:
		return fmt.Errorf("--%s %v: give at most %v", flag, d, most)
	case d%unit == 0:
		return nil
	case unit == time.Second:
		return fmt.Errorf("--%s %v: give whole seconds", flag, d)
	}
	return fmt.Errorf("--%s %v: give whole milliseconds", flag, d)
}

// copyFlags say how memory is copied.
var copyFlags = []string{
	"mode", "granularity", "baseline", "baseline-budget", "compress", "streams", "max-bandwidth", "keep-source", "checkpoint-interval",
}

// checkTogether: flags of which one makes no sense with the other.
func (f *migrateFlags) checkTogether(changed func(string) bool) error {
	switch {
	case f.granularity == "page" && f.baseline != "auto" && f.baseline != "none":
		return fmt.Errorf("--baseline %s is for --granularity line: pages are not compared", f.baseline)
	case f.baseline == "none" && f.baselineBudget != 0:
		return errors.New("--baseline-budget is for baselines: --baseline none has none")
	case changed("checkpoint-interval") && !f.keepSource:
		return errors.New("--checkpoint-interval is for --keep-source: give that too, or leave it out")
	case !f.local:
		return nil
	case !strings.HasPrefix(f.to, "unix:"):
		return errors.New("--local hands the memory's files over, between two processes of one host: give --to unix:PATH")
	}
	if i := slices.IndexFunc(copyFlags, changed); i >= 0 {
		return fmt.Errorf("--local copies no memory: leave out --%s", copyFlags[i])
	}
	return nil
}

package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// The states in InstanceInfo.State, in Firecracker's spelling.
const (
	StateNotStarted = "Not started"
	StateRunning    = "Running"
	StatePaused     = "Paused"
)

// AppName is InstanceInfo.AppName.
const AppName = "Fineline"

const (
	maxVCPUs     = 254     // APIC ids below 255: no x2APIC interrupt remapping
	maxMemoryMiB = 1 << 24 // 16 TiB; what the host really has is checked at the start
	maxPathBytes = 4095    // PATH_MAX without its NUL
	maxStreams   = 127     // as many as the protocol has beside the main connection
)

// The most that a MigrationRequest takes, for who asks in units of its own.
const (
	MaxDowntimeMS   = 3600_000
	MaxTimeoutS     = 7 * 24 * 3600
	MaxCheckpointMS = 3600_000
	MaxSizeBytes    = 1 << 50 // of a budget, or of a second's bandwidth
)

// InstanceInfo answers GET /. State is one of Firecracker's three; Phase is ours and
// tells more (see Phase).
type InstanceInfo struct {
	ID         string `json:"id"`
	State      string `json:"state"`
	VMMVersion string `json:"vmm_version"`
	AppName    string `json:"app_name"`
	Phase      string `json:"phase"`
	// Standby is there while the guest has moved and this process keeps it.
	Standby *Standby `json:"standby,omitempty"`
}

// Standby is what a process keeps of a guest that has moved: its newest checkpoint, from which it can
// go on here.
type Standby struct {
	Checkpoint uint64  `json:"checkpoint"`  // 0: the guest as it was when it moved
	AgeMS      float64 `json:"age_ms"`      // since the checkpoint came
	IntervalMS float64 `json:"interval_ms"` // between it and the one before; 0: there is none
	Connected  bool    `json:"connected"`   // to the process that runs the guest
	Doubt      string  `json:"doubt,omitempty"`
	Bytes      uint64  `json:"bytes"`        // of the checkpoint, on the wire
	Pages      uint64  `json:"pages"`        // in it
	Lines      uint64  `json:"lines"`        // in it
	PauseUS    uint64  `json:"pause_us"`     // how long the guest stood still for it
	MaxPauseUS uint64  `json:"max_pause_us"` // for the worst one so far
	TotalBytes uint64  `json:"total_bytes"`
	Missed     uint64  `json:"missed"` // checkpoints that were not to be had
}

// Version answers GET /version. The key is the one that Firecracker's clients read; the
// value is the version of this VMM.
type Version struct {
	FirecrackerVersion string `json:"firecracker_version"`
}

// MachineConfig is the body of /machine-config.
type MachineConfig struct {
	VCPUCount  int   `json:"vcpu_count"`
	MemSizeMiB int64 `json:"mem_size_mib"`
	// SMT must be false: the guest sees one thread a core.
	SMT bool `json:"smt"`
	// TrackDirtyPages is kept for clients that set it; a migration tracks dirty pages
	// whatever it says.
	TrackDirtyPages bool `json:"track_dirty_pages"`
	// CPUTemplate is "None" (as the host) or "baseline" (for fleets); empty is "None".
	CPUTemplate string `json:"cpu_template,omitempty"`
	// HugePages is "None" or "2M"; empty is "None".
	HugePages string `json:"huge_pages,omitempty"`
}

// Validate checks what can be judged without the host.
func (c MachineConfig) Validate() error {
	switch {
	case c.VCPUCount < 1 || c.VCPUCount > maxVCPUs:
		return fmt.Errorf("vcpu_count is %d: choose 1 to %d", c.VCPUCount, maxVCPUs)
	case c.MemSizeMiB < 1 || c.MemSizeMiB > maxMemoryMiB:
		return fmt.Errorf("mem_size_mib is %d: choose 1 to %d", c.MemSizeMiB, maxMemoryMiB)
	case c.SMT:
		return fmt.Errorf("smt is not supported: leave it false")
	}
	if err := oneOf("cpu_template", c.CPUTemplate, "None", "baseline"); err != nil {
		return err
	}
	return oneOf("huge_pages", c.HugePages, "None", "2M")
}

// MachineConfigPatch is the body of PATCH /machine-config: what is nil stays.
type MachineConfigPatch struct {
	VCPUCount       *int    `json:"vcpu_count,omitempty"`
	MemSizeMiB      *int64  `json:"mem_size_mib,omitempty"`
	SMT             *bool   `json:"smt,omitempty"`
	TrackDirtyPages *bool   `json:"track_dirty_pages,omitempty"`
	CPUTemplate     *string `json:"cpu_template,omitempty"`
	HugePages       *string `json:"huge_pages,omitempty"`
}

// Apply returns c with the patch laid over it.
func (p MachineConfigPatch) Apply(c MachineConfig) MachineConfig {
	overlay(&c.VCPUCount, p.VCPUCount)
	overlay(&c.MemSizeMiB, p.MemSizeMiB)
	overlay(&c.SMT, p.SMT)
	overlay(&c.TrackDirtyPages, p.TrackDirtyPages)
	overlay(&c.CPUTemplate, p.CPUTemplate)
	overlay(&c.HugePages, p.HugePages)
	return c
}

func overlay[T any](dst, src *T) {
	if src != nil {
		*dst = *src
	}
}

// BootSource is the body of /boot-source.
type BootSource struct {
	KernelImagePath string `json:"kernel_image_path"` // a path of the VMM, or builtin:NAME
	InitrdPath      string `json:"initrd_path,omitempty"`
	BootArgs        string `json:"boot_args,omitempty"`
}

// Validate checks what can be judged without the files.
func (b BootSource) Validate() error {
	if b.KernelImagePath == "" {
		return fmt.Errorf("kernel_image_path is missing")
	}
	if err := checkPath("kernel_image_path", b.KernelImagePath); err != nil {
		return err
	}
	if strings.ContainsRune(b.BootArgs, 0) {
		return fmt.Errorf("boot_args has a NUL byte")
	}
	return checkPath("initrd_path", b.InitrdPath)
}

// LoggerConfig is the body of PUT /logger.
type LoggerConfig struct {
	LogPath       string `json:"log_path,omitempty"` // appended to; empty leaves stderr
	Level         string `json:"level,omitempty"`    // Error, Warning, Info, Debug, Trace or Off, in any case
	ShowLevel     bool   `json:"show_level,omitempty"`
	ShowLogOrigin bool   `json:"show_log_origin,omitempty"`
	Module        string `json:"module,omitempty"`
}

// Validate checks the values.
func (l LoggerConfig) Validate() error {
	if err := oneOf("level", strings.ToLower(l.Level), "error", "warning", "info", "debug", "trace", "off"); err != nil {
		return err
	}
	return checkPath("log_path", l.LogPath)
}

// VMConfig answers GET /vm/config.
type VMConfig struct {
	MachineConfig MachineConfig `json:"machine-config"`
	BootSource    *BootSource   `json:"boot-source,omitempty"`
}

// MigrationRequest starts a migration. Names and values are Cloud Hypervisor's where it has
// the thing; zero is "the default of the VMM" everywhere.
type MigrationRequest struct {
	DestinationURL string `json:"destination_url"` // unix:PATH or tcp:HOST:PORT
	DowntimeMS     int64  `json:"downtime_ms,omitempty"`
	TimeoutS       int64  `json:"timeout_s,omitempty"`
	// TimeoutStrategy is "Cancel" or "Ignore" (go on and exceed the downtime).
	TimeoutStrategy string `json:"timeout_strategy,omitempty"`
	Connections     int    `json:"connections,omitempty"`
	MemoryMode      string `json:"memory_mode,omitempty"` // "Precopy", "Postcopy" or "Hybrid"

	// Ours.
	MaxBandwidthBytesPerSecond int64  `json:"max_bandwidth_bytes_per_second,omitempty"` // 0: no limit
	Granularity                string `json:"granularity,omitempty"`                    // "line" or "page"
	Baseline                   string `json:"baseline,omitempty"`                       // "auto", "twin", "hash" or "none"
	BaselineBudgetBytes        int64  `json:"baseline_budget_bytes,omitempty"`          // 0: half of the guest's memory
	Compression                string `json:"compression,omitempty"`                    // "auto", "zstd" or "none"

	// Local hands the memory's files over instead of a copy: on one host, unix: only.
	Local bool `json:"local,omitempty"`

	// KeepSource: the source takes a checkpoint of the guest every CheckpointMS (0: the default), and goes on from the last one if the
	// destination dies.
	KeepSource   bool  `json:"keep_source,omitempty"`
	CheckpointMS int64 `json:"checkpoint_ms,omitempty"`

	// Mutual TLS on a tcp: address: absolute paths of PEM files that the VMM reads, all three or none.
	TLSCert string `json:"tls_cert,omitempty"`
	TLSKey  string `json:"tls_key,omitempty"`
	TLSCA   string `json:"tls_ca,omitempty"`
}

// Validate checks ranges and spellings; whether the VMM has the mode is the Controller's
// to say.
func (r MigrationRequest) Validate() error {
	if r.DestinationURL == "" {
		return fmt.Errorf("destination_url is missing: give unix:PATH or tcp:HOST:PORT")
	}
	if err := checkPath("destination_url", r.DestinationURL); err != nil {
		return err
	}
	if err := errors.Join(r.checkTLS(), r.checkLocal()); err != nil {
		return err
	}
	for _, c := range []struct {
		name       string
		value, max int64
	}{
		{"downtime_ms", r.DowntimeMS, MaxDowntimeMS},
		{"timeout_s", r.TimeoutS, MaxTimeoutS},
		{"connections", int64(r.Connections), maxStreams},
		{"max_bandwidth_bytes_per_second", r.MaxBandwidthBytesPerSecond, MaxSizeBytes},
		{"checkpoint_ms", r.CheckpointMS, MaxCheckpointMS},
		{"baseline_budget_bytes", r.BaselineBudgetBytes, MaxSizeBytes},
	} {
		if c.value < 0 || c.value > c.max {
			return fmt.Errorf("%s is %d: choose 0 (the default) to %d", c.name, c.value, c.max)
		}
	}
	if r.CheckpointMS != 0 && !r.KeepSource {
		return errors.New("checkpoint_ms is for keep_source: set that too, or leave it out")
	}
	if err := oneOf("timeout_strategy", r.TimeoutStrategy, "Cancel", "Ignore"); err != nil {
		return err
	}
	if err := oneOf("memory_mode", r.MemoryMode, "Precopy", "Postcopy", "Hybrid"); err != nil {
		return err
	}
	if err := oneOf("compression", r.Compression, "auto", "zstd", "none"); err != nil {
		return err
	}
	if err := oneOf("baseline", r.Baseline, "auto", "twin", "hash", "none"); err != nil {
		return err
	}
	return oneOf("granularity", r.Granularity, "page", "line")
}

// RecoverRequest connects a post-copy anew whose connection was lost.
type RecoverRequest struct {
	DestinationURL string `json:"destination_url,omitempty"` // of the same destination process; empty: where it was
}

// Validate checks what can be judged without the address.
func (r RecoverRequest) Validate() error { return checkPath("destination_url", r.DestinationURL) }

// Decision resolves a migration in doubt.
type Decision string

// The decisions. Whoever takes one knows what became of the other process.
const (
	DecisionKeep    Decision = "keep"    // the guest runs nowhere else: it is ours
	DecisionDiscard Decision = "discard" // the guest runs elsewhere: give it up here
)

func (d Decision) event() (Event, error) {
	switch d {
	case DecisionKeep:
		return Keep, nil
	case DecisionDiscard:
		return Discard, nil
	}
	return EventInvalid, fmt.Errorf("decision is %q: choose %q or %q", d, DecisionKeep, DecisionDiscard)
}

// MigrationEvent is one line of the progress stream. Data is the migration's own JSON,
// opaque here: with Final it is the result, else the latest progress. A Fault takes the
// place of Data where there is none: the migration was refused before it began.
type MigrationEvent struct {
	Final bool            `json:"final"`
	Data  json.RawMessage `json:"data,omitempty"`
	Fault string          `json:"fault_message,omitempty"`
}

// The small bodies.
type (
	actionBody struct {
		ActionType string `json:"action_type"`
	}
	vmBody struct {
		State string `json:"state"`
	}
	resolveBody struct {
		Decision Decision `json:"decision"`
	}
	emptyBody struct{}
	faultBody struct {
		FaultMessage string          `json:"fault_message"`
		Result       json.RawMessage `json:"result,omitempty"` // of a migration that was refused
	}
)

// oneOf accepts the empty string too: the default.
func oneOf(name, value string, allowed ...string) error {
	if value == "" {
		return nil
	}
	for _, a := range allowed {
		if value == a {
			return nil
		}
	}
	return fmt.Errorf("%s is %q: choose one of %s", name, value, strings.Join(allowed, ", "))
}

func checkPath(name, path string) error {
	if len(path) > maxPathBytes {
		return fmt.Errorf("%s has %d bytes: the limit is %d", name, len(path), maxPathBytes)
	}
	if strings.ContainsRune(path, 0) {
		return fmt.Errorf("%s has a NUL byte", name)
	}
	return nil
}

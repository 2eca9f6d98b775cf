package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
)

// The paths: Firecracker's, then our own.
const (
	pathInstance      = "/"
	pathVersion       = "/version"
	pathMachineConfig = "/machine-config"
	pathBootSource    = "/boot-source"
	pathLogger        = "/logger"
	pathActions       = "/actions"
	pathVM            = "/vm"
	pathVMConfig      = "/vm/config"

	pathMetrics          = "/fineline/v1/metrics"
	pathTrack            = "/fineline/v1/track"
	pathStop             = "/fineline/v1/stop"
	pathMigration        = "/fineline/v1/migration"
	pathMigrationEvents  = "/fineline/v1/migration/events"
	pathMigrationRecover = "/fineline/v1/migration/recover"
	pathMigrationCancel  = "/fineline/v1/migration/cancel"
	pathMigrationResolve = "/fineline/v1/migration/resolve"
)

// handler returns what a GET answers; nil is 204.
type handler func(s *Server, ctx context.Context, body []byte) (any, error)

// routes match whole paths. http.ServeMux would redirect unclean ones and answer 404 and 405
// in plain text, where Firecracker's clients expect 400 with a fault_message.
var routes = map[string]map[string]handler{
	pathInstance: {http.MethodGet: getInstance},
	pathVersion:  {http.MethodGet: getVersion},
	pathVMConfig: {http.MethodGet: getVMConfig},
	pathMachineConfig: {
		http.MethodGet:   getMachineConfig,
		http.MethodPut:   with((*Session).SetMachineConfig),
		http.MethodPatch: with((*Session).PatchMachineConfig),
	},
	pathBootSource: {
		http.MethodGet: getBootSource,
		http.MethodPut: with((*Session).SetBootSource),
	},
	pathLogger:           {http.MethodPut: with((*Session).SetLogger)},
	pathActions:          {http.MethodPut: with(act)},
	pathVM:               {http.MethodPatch: with(setState)},
	pathMetrics:          {http.MethodGet: getMetrics},
	pathStop:             {http.MethodPut: without((*Session).Stop)},
	pathMigration:        {http.MethodGet: getMigration, http.MethodPut: with((*Session).StartMigration)},
	pathMigrationRecover: {http.MethodPut: with((*Session).RecoverMigration)},
	pathMigrationCancel:  {http.MethodPut: without((*Session).CancelMigration)},
	pathMigrationResolve: {http.MethodPut: with(resolve)},
}

// with decodes a body of type T for op.
func with[T any](op func(*Session, context.Context, T) error) handler {
	return func(s *Server, ctx context.Context, body []byte) (any, error) {
		var v T
		if err := decode(body, &v); err != nil {
			return nil, err
		}
		return nil, op(s.session, ctx, v)
	}
}

// without takes no body, or an empty object.
func without(op func(*Session, context.Context) error) handler {
	return func(s *Server, ctx context.Context, body []byte) (any, error) {
		if len(bytes.TrimSpace(body)) > 0 {
			if err := decode(body, &emptyBody{}); err != nil {
				return nil, err
			}
		}
		return nil, op(s.session, ctx)
	}
}

func getInstance(s *Server, _ context.Context, _ []byte) (any, error) {
	life := s.session.Lifecycle()
	return InstanceInfo{
		ID: s.cfg.ID, State: life.State(), VMMVersion: s.cfg.Version, AppName: AppName, Phase: life.Phase.String(),
		Standby: s.session.ctrl.Standby(),
	}, nil
}

func getVersion(s *Server, _ context.Context, _ []byte) (any, error) {
	return Version{FirecrackerVersion: s.cfg.Version}, nil
}

func getMachineConfig(s *Server, _ context.Context, _ []byte) (any, error) {
	return s.session.ctrl.MachineConfig(), nil
}

func getBootSource(s *Server, _ context.Context, _ []byte) (any, error) {
	b, ok := s.session.ctrl.BootSource()
	if !ok {
		return nil, errors.New("no boot source is set: PUT /boot-source first")
	}
	return b, nil
}

func getVMConfig(s *Server, _ context.Context, _ []byte) (any, error) {
	c := VMConfig{MachineConfig: s.session.ctrl.MachineConfig()}
	if b, ok := s.session.ctrl.BootSource(); ok {
		c.BootSource = &b
	}
	return c, nil
}

func getMetrics(s *Server, _ context.Context, _ []byte) (any, error) {
	if m := s.session.ctrl.Metrics(); m != nil {
		return m, nil
	}
	return nil, errors.New("no machine has been started: it has no counters yet")
}

func getMigration(s *Server, _ context.Context, _ []byte) (any, error) {
	if m := s.session.ctrl.Migration(); m != nil {
		return m, nil
	}
	return nil, errors.New("no migration has been started")
}

func act(s *Session, ctx context.Context, b actionBody) error {
	switch b.ActionType {
	case actionStart:
		return s.Start(ctx)
	case "SendCtrlAltDel":
		return errors.New("SendCtrlAltDel is not supported: there is no keyboard; power off in the guest, or PUT " + pathStop)
	case "FlushMetrics":
		return errors.New("FlushMetrics is not supported: GET " + pathMetrics + " instead")
	}
	return fmt.Errorf("action_type is %.64q: choose %s", b.ActionType, actionStart)
}

func setState(s *Session, ctx context.Context, b vmBody) error {
	switch b.State {
	case vmPaused:
		return s.Pause(ctx)
	case vmResumed:
		return s.Resume(ctx)
	}
	return fmt.Errorf("state is %.64q: choose %s or %s", b.State, vmPaused, vmResumed)
}

func resolve(s *Session, ctx context.Context, b resolveBody) error {
	return s.ResolveMigration(ctx, b.Decision)
}

// The values of action_type and of PATCH /vm's state that are served.
const (
	actionStart = "InstanceStart"
	vmPaused    = "Paused"
	vmResumed   = "Resumed"
)

package migration

import (
	"os"
	"testing"

	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if side := os.Getenv(sideEnv); side != "" {
		os.Exit(runSide(side)) // a process of TestKillAtEveryPoint
	}
	logrus.SetLevel(logrus.PanicLevel)
	goleak.VerifyTestMain(m)
}

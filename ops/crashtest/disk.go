package crashtest

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/tokenledger/tokenledger/ops/testkit/disk"
)

// onDisk returns settings for a machine that runs on a disk.
func onDisk(d *disk.Disk, s settings) settings {
	s.Image, s.Mount, s.Data = d.Image(), d.Mount(), filepath.Join(d.Mount(), "data")
	return s
}

// cutPower cuts the power of a machine's disk while its process runs. If flush
// is true, some writes have reached the disk that the process did not sync.
func cutPower(t testing.TB, d *disk.Disk, m *machine, rng *rand.Rand, flush bool) {
	t.Helper()
	p := m.process()
	p.freeze()
	if flush {
		disk.FlushSome(t, rng, p.path())
	}
	d.CutPower(t)
	p.kill()
	m.settings.Image = d.Image()
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

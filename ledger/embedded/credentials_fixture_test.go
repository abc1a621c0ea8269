package embedded

import (
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/tokenledger/tokenledger/ops/addrtest"
)

// issued creates credentials and loads those of each node: name -> credentials.
func issued(t *testing.T, dir string, requests ...Request) map[string]*Credentials {
	t.Helper()
	members, err := Issue(dir, requests)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*Credentials{}
	for _, m := range members {
		if all[m.Name], err = LoadCredentials(filepath.Join(dir, "nodes", m.Name)); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func ledgerOn(name string, hosts ...string) Request {
	return Request{Name: name, Role: RoleLedger, Hosts: hosts}
}

func verifierNamed(name string) Request { return Request{Name: name, Role: RoleVerifier} }

// clusterFixture is three servers that keep one log.
type clusterFixture struct {
	t       *testing.T
	dir     string // of the credentials
	creds   map[string]*Credentials
	configs []Config
	servers []*Server
}

func startCluster(t *testing.T) *clusterFixture {
	t.Helper()
	k := newCluster(t)
	for i := range k.configs {
		k.start(i)
	}
	return k
}

func newCluster(t *testing.T) *clusterFixture {
	t.Helper()
	k := &clusterFixture{t: t, dir: t.TempDir()}
	k.creds = issued(t, k.dir, ledgerOn("l1", "127.0.0.1"), ledgerOn("l2", "127.0.0.1"), ledgerOn("l3", "127.0.0.1"),
		verifierNamed("v1"), verifierNamed("v2"))
	var routes []string
	for range 3 {
		routes = append(routes, addrtest.Free(t))
	}
	for i, name := range []string{"l1", "l2", "l3"} {
		k.configs = append(k.configs, Config{
			Dir: t.TempDir(), MaxStore: 1 << 30, Listen: "127.0.0.1:0", Credentials: k.creds[name],
			Cluster: &Cluster{Listen: routes[i], Routes: routes},
			Logger:  slog.New(slog.NewTextHandler(t.Output(), nil)).With("server", name),
		})
	}
	k.servers = make([]*Server, len(k.configs))
	return k
}

func (k *clusterFixture) start(i int) {
	k.t.Helper()
	s, err := Start(testContext(k.t), k.configs[i])
	if err != nil {
		k.t.Fatal(err)
	}
	k.servers[i] = s
	k.t.Cleanup(func() { s.Shutdown(testContext(k.t)) })
}

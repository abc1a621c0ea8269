package embedded

import "testing"

// TestOwnRoute finds the route of a server to itself, which the server tells to
// the others.
func TestOwnRoute(t *testing.T) {
	tests := []struct {
		name   string
		routes []string
		hosts  []string
		port   int
		want   string
	}{
		{"by host name", []string{"nats://l1:7604", "nats://l2:7604", "nats://l3:7604"}, []string{"10.0.0.2", "l2"}, 7604, "l2:7604"},
		{"by address", []string{"10.0.0.1:7604", "10.0.0.2:7604", "10.0.0.3:7604"}, []string{"10.0.0.2"}, 7604, "10.0.0.2:7604"},
		{"behind another port", []string{"l1:1", "l2:2", "l3:3"}, []string{"l3"}, 7604, "l3:3"},
		{"one machine", []string{"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"}, []string{"127.0.0.1"}, 2, "127.0.0.1:2"},
		{"one machine behind other ports", []string{"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"}, []string{"127.0.0.1"}, 7604, ""},
		{"no host of its own", []string{"l1:7604", "l2:7604", "l3:7604"}, []string{"elsewhere"}, 7604, ""},
	}
	for _, tt := range tests {
		c := &Cluster{Routes: tt.routes}
		if got := c.own(tt.hosts, tt.port); got != tt.want {
			t.Errorf("%s: own(%q, %d) = %q, want %q", tt.name, tt.hosts, tt.port, got, tt.want)
		}
	}
}

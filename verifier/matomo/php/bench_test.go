package php_test

import (
	"testing"

	"github.com/tokenledger/tokenledger/verifier/matomo/php"
)

// BenchmarkHit reads and writes the query of a tracker's hit.
func BenchmarkHit(b *testing.B) {
	const query = "action_name=Home&idsite=1&rec=1&r=123456&h=12&m=30&s=15&url=https%3A%2F%2Fexample.org%2Fa%2Fb%3Fc%3Dd&urlref=https%3A%2F%2Fexample.com%2F" +
		"&_id=0123456789abcdef&_idn=1&send_image=0&_refts=0&pv_id=AbCdEf&pf_net=1&pf_srv=20&pf_tfr=3&uadata=%7B%22brands%22%3A%5B%5D%7D&pdf=1&cookie=1&res=1920x1080"
	b.ReportAllocs()
	for b.Loop() {
		p, err := php.ParseQuery(query, php.Limits{})
		if err != nil {
			b.Fatal(err)
		}
		if len(p.Encode()) < 100 {
			b.Fatal("short")
		}
	}
}

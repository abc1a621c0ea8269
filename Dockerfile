# The image holds the program, its licence and two folders, and nothing else:
# no shell, no libc, no certificates (nodes know each other by an authority of
# their own). make build puts the program, which is static, into bin/.
#
#	make build && docker build -t tokenledger:local .
FROM scratch

COPY LICENSE /LICENSE
COPY bin/tokenledger /tokenledger

# An empty named volume takes on the owner of the folder that it is mounted on,
# which nothing in this image could change later.
COPY --chown=65532:65532 ops/deploy/compose/volume /data
COPY --chown=65532:65532 ops/deploy/compose/volume /credentials

ENV TOKENLEDGER_DATA=/data
USER 65532:65532
ENTRYPOINT ["/tokenledger"]
CMD ["help"]

# The image holds only the program, its licence and two folders: no shell, no libc,
# no certificates (nodes use an authority of their own). make build puts the static
# program into bin/.
#
#	make build && docker build -t tokenledger:local .
FROM scratch

COPY LICENSE /LICENSE
COPY bin/tokenledger /tokenledger

# An empty named volume takes the owner of the folder that it is mounted on. Nothing
# in this image could change the owner later.
COPY --chown=65532:65532 ops/deploy/compose/volume /data
COPY --chown=65532:65532 ops/deploy/compose/volume /credentials

ENV TOKENLEDGER_DATA=/data
USER 65532:65532
ENTRYPOINT ["/tokenledger"]
CMD ["help"]

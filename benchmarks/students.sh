#!/bin/sh
# Teachers, their INT8 bundles, and their students: of the family of `edgead distil`, the largest that takes 10 ms.
#
#     sh benchmarks/students.sh DATA OUT [NAME...]
#
# DATA holds aws_cookies, mvtec_hazelnut_reduced, textures and weights. OUT is a folder for everything that is made.
# NAME: some of the teachers below.
# A student is trained for 2,000 steps, half of the default.
set -eu
data=$1 out=$2
shift 2
squeezenet=$data/weights/squeezenet1_1_imagenet.pth
resnet=$data/weights/resnet50v2_imagenet_stem_l1_l3.pth
mkdir -p "$out"

teacher() { # NAME ARGUMENTS: train it and export it in both precisions; INT8 may be refused by its gate
    name=$1
    shift
    [ -d "$out/$name.edgead" ] && return
    edgead train --data "$data/$set" --seed 0 --out "$out/$name" "$@"
    edgead export --checkpoint "$out/$name" --out "$out/$name.edgead"
    case $name in
    transfusion | differnet-64*) ;; # the gate would take hours for 18 times the layers, and for 64 views
    *) edgead export --checkpoint "$out/$name" --precision int8 --out "$out/$name-int8.edgead" || true ;;
    esac
}

student() { # NAME [ARGUMENTS]
    name=$1
    shift
    edgead distil "$out/$name.edgead" --data "$data/$set" --textures "$data/textures" --weights "$squeezenet" \
        --target 10ms --engine openvino --set steps=2000 \
        --out "$out/$name-student" --bundle-out "$out/$name-student.edgead" "$@"
}

all="patchcore-resnet50v2 patchcore-4000 patchcore differnet differnet-64 differnet-64-4000 transfusion"
all="$all aand aand-hazelnut aand-edge-hazelnut aand-resnet50v2"

for name in ${*:-$all}; do
    set=aws_cookies
    case $name in
    patchcore-resnet50v2 | patchcore-4000)
        teacher $name --method patchcore --preset edge --set backbone=resnet50v2 --set size=320 --set memory=8192 \
            --weights "$resnet"
        if [ $name = patchcore-4000 ]; then
            student $name --set steps=4000 # as many steps and images as by default
        else
            student $name --set pictures=800 # its teacher takes most of a second for each
        fi
        ;;
    patchcore)
        teacher $name --method patchcore --preset nano --weights "$squeezenet"
        student $name
        ;;
    differnet)
        teacher $name --method differnet --preset nano --weights "$squeezenet"
        student $name
        ;;
    differnet-64 | differnet-64-4000) # the published number of views
        teacher $name --method differnet --preset nano --set views=64 --weights "$squeezenet"
        if [ $name = differnet-64-4000 ]; then
            student $name --set steps=4000 # as by default
        else
            student $name # 1,000 images before the score had a mean
        fi
        ;;
    transfusion) # 18 reverse steps
        teacher $name --method transfusion --preset nano --set size=128 --set steps=600 --textures "$data/textures"
        student $name --set pictures=500 # as above
        ;;
    aand | aand-hazelnut)
        [ $name = aand ] || set=mvtec_hazelnut_reduced
        teacher $name --method aand --preset nano --set size=257 --weights "$squeezenet" --textures "$data/textures"
        student $name
        ;;
    aand-edge-hazelnut) # the published number of epochs
        set=mvtec_hazelnut_reduced
        teacher $name --method aand --preset edge --set backbone=squeezenet1_1 --set size=257 --weights "$squeezenet" \
            --textures "$data/textures"
        student $name
        ;;
    aand-resnet50v2) # the same, of a larger network in bfloat16; as many steps of the student as by default
        teacher $name --method aand --preset edge --set backbone=resnet50v2 --set size=285 --mixed-precision bf16 \
            --weights "$resnet" --textures "$data/textures"
        student $name --set steps=4000
        ;;
    esac
done

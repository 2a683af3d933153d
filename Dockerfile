# The steps of docs/installation.md on the official image.  We have not built it: our test environment
# has no access to an image registry.  Without PIP_EXTRA_INDEX_URL, pip installs PyTorch with CUDA.
FROM ros:jazzy
ARG PIP_EXTRA_INDEX_URL
SHELL ["/bin/bash", "-c"]
RUN apt-get update && apt-get install -y python3-venv && rm -rf /var/lib/apt/lists/*
WORKDIR /ws
COPY . src/marigold_ros
RUN apt-get update && rosdep update \
    && rosdep install --from-paths src --ignore-src -y \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv --system-site-packages venv && touch venv/COLCON_IGNORE \
    && . venv/bin/activate \
    && pip install --no-cache-dir -r src/marigold_ros/requirements-robot.txt
RUN source /opt/ros/jazzy/setup.bash && . venv/bin/activate \
    && python -m colcon build
ENTRYPOINT ["/bin/bash", "-c", \
    "source /ws/venv/bin/activate && source /ws/install/setup.bash && exec \"$@\"", "--"]
CMD ["ros2", "launch", "marigold_ros", "depth.launch.py"]
